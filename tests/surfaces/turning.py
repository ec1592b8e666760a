"""A small study of conformers, to try the viewer on: places from a ring of points, no force field behind them."""

__all__ = ["Turning", "conformers"]

import time
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from studio.core.controls import Knob, Range, Words
from studio.core.runs import Run
from studio.core.snapshots import Snapshot
from studio.scenes import Members, Molecules
from studio.studies.study import Study


def conformers(n=5, title="Benzamide", smiles="NC(=O)c1ccccc1", moments=0, seed=0, caption="Conformer {0}"):
    """Return n turned copies of benzamide; the amide of each is turned by another angle."""
    ring = np.deg2rad(60.0 * np.arange(6))
    carbons = np.column_stack([1.39 * np.cos(ring), 1.39 * np.sin(ring), np.zeros(6)])
    hydrogens = np.column_stack([2.48 * np.cos(ring[1:]), 2.48 * np.sin(ring[1:]), np.zeros(5)])
    amide = np.array([[2.89, 0, 0], [3.5, 1.06, 0], [3.6, -1.2, 0], [3.1, -2.1, 0], [4.6, -1.2, 0]])
    symbols = ("C",) * 6 + ("H",) * 5 + ("C", "O", "N", "H", "H")
    pairs = [(i, (i + 1) % 6) for i in range(6)] + [(i + 1, i + 6) for i in range(5)]
    bonds = np.array([*pairs, (0, 11), (11, 12), (11, 13), (13, 14), (13, 15)])
    orders = np.array([1.5] * 6 + [1.0] * 6 + [2.0] + [1.0] * 3)
    angles = np.linspace(0.0, np.pi, n, endpoint=False) + seed
    turned = [amide @ np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]]) for a in angles]
    places = np.stack([np.concatenate([carbons, hydrogens, part]) for part in turned]) if n else np.zeros((0, 16, 3))
    noise = np.random.default_rng(seed).normal(0.0, 0.3, places.shape)
    path = np.stack([places + noise * share for share in np.linspace(1, 0, moments)]) if moments else places[None][:0]
    energies = 3.0 * np.sin(np.arange(n)) ** 2
    energies -= energies.min() if n else 0.0
    return Molecules(
        title, smiles, symbols, np.zeros(16, dtype=int), bonds, orders, places, energies, np.arange(n) // 2,
        tuple(caption.format(index + 1) for index in range(n)), path, "MMFF94", -12.3456,
    )  # fmt: skip


@dataclass(frozen=True)
class Turning(Study):
    name: ClassVar[str] = "turning"
    title: ClassVar[str] = "Turning"
    summary: ClassVar[str] = "A few conformers come to rest."
    papers: ClassVar = ()

    words: Annotated[str, Words(200), Knob("Title")] = "Benzamide"
    steps: Annotated[int, Range(1, 1000), Knob("Steps")] = 6
    members: Annotated[int, Range(0, 40), Knob("Conformers")] = 5
    wait: Annotated[float, Range(0.0, 10.0), Knob("Seconds a step")] = 0.0

    def run(self, start: Snapshot | None = None) -> Run[Snapshot]:
        for step in range(0 if start is None else start.step, self.steps + 1):
            time.sleep(self.wait)
            yield Snapshot(step=step, total=self.steps, phase="relax", outcome="at rest" if step == self.steps else "")

    def view(self, snapshot):
        left = 1.0 - snapshot.step / snapshot.total
        words = f"{self.words}: conformer {{0}}" if "{" not in self.words else "Conformer {0}"
        scene = conformers(self.members, self.words, moments=snapshot.step + 1, seed=self.seed, caption=words)
        scene = replace(scene, positions=scene.positions + 0.3 * left * np.sin(scene.positions))
        if not self.members:
            return (scene,)
        near = np.linspace(0.1, 1.0, self.members)
        members = Members("Conformers", "energy (kcal/mol)", "RMSD (Å)", scene.energies, near, scene.captions)
        return scene, members

    def forecast(self):
        return f"{self.steps} steps."

    def baseline(self):
        return replace(self, members=self.members - 1) if self.members > 1 else None

    @classmethod
    def tiny(cls):
        return replace(cls(), steps=2)
