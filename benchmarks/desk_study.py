"""A random walk to try the desk with: knobs for how long a step naps, works and how much of the walk is kept."""

__all__ = ["Trail", "Walk", "ending"]

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from studio.core.controls import Knob, Range
from studio.core.runs import Run, last
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot
from studio.files.frames import snapshot_bytes
from studio.scenes import Curves, Images, Scene, Series
from studio.studies.study import Study

SIDE = 48
SIZE = 96


@dataclass(frozen=True, kw_only=True, eq=False)
class Trail(Snapshot):
    """The last steps of a walk, the state of its dice, and a ballast that holds the step's number throughout."""

    walk: Tensor
    random: Tensor
    ballast: Tensor


@dataclass(frozen=True)
class Walk(Study):
    """Walks at random, one number a step; ten steps are five and five."""

    name: ClassVar[str] = "walk"
    title: ClassVar[str] = "Random walk"
    summary: ClassVar[str] = "Walks at random, one number a step."
    papers: ClassVar = ()

    steps: Annotated[int, Range(1, 100_000), Knob("Steps")] = 200
    nap: Annotated[float, Range(0.0, 10.0), Knob("Nap", "seconds a step")] = 0.0
    rounds: Annotated[int, Range(0, 100_000), Knob("Rounds", "rounds of arithmetic a step")] = 0
    megabytes: Annotated[float, Range(0.0, 4.0), Knob("Megabytes", "the size of a snapshot")] = 0.0

    def run(self, start: Trail | None = None) -> Run[Trail]:
        """Return the walk."""
        return self._walked(start)

    def _walked(self, start: Trail | None) -> Generator[Trail, None, None]:
        generator = generator_from(self.seed, "walk")
        room = int(self.megabytes * 2**20 / 4)
        now = start or Trail(
            step=0, total=self.steps, phase="walk", walk=torch.zeros(1), random=generator.get_state(),
            ballast=torch.zeros(room),
        )  # fmt: skip
        yield replace(now, total=self.steps)
        while now.step < self.steps:
            generator.set_state(now.random)
            step = now.step + 1
            walk = torch.cat((now.walk, now.walk[-1:] + torch.randn(1, generator=generator)))[-SIDE:]
            work(self.rounds)
            if self.nap:
                time.sleep(self.nap)
            now = Trail(
                step=step, total=self.steps, phase="walk", walk=walk, random=generator.get_state(),
                ballast=torch.full((room,), float(step)),
                outcome=f"walked to {walk[-1].item():.3f}" if step == self.steps else "",
            )  # fmt: skip
            yield now

    def view(self, snapshot: Trail) -> tuple[Scene, ...]:
        """Return the walk as bars in a small picture, and as a curve."""
        walk = snapshot.walk.double().numpy()
        heights = np.clip(walk / max(np.abs(walk).max(), 1e-9), -1, 1) * SIDE / 2 + SIDE / 2
        bars = np.arange(SIDE)[::-1, None] < np.resize(heights, SIDE)[None, :]
        pixels = np.where(bars[..., None], np.array([79, 70, 229]), np.array([241, 245, 249])).astype(np.uint8)
        steps = np.arange(snapshot.step + 1 - len(walk), snapshot.step + 1, dtype=float)
        curve = Curves("Where it is", "step", "place", (Series("place", steps, walk),))
        return Images(pixels[None], ("the last steps",)), curve

    @classmethod
    def tiny(cls) -> Self:
        """Return three steps."""
        return cls(steps=3)


def work(rounds: int) -> None:
    """Do some rounds of arithmetic on one core, a fixed amount whatever the machine is busy with."""
    matrix = torch.eye(SIZE)
    for _ in range(rounds):
        matrix = torch.tanh(matrix @ matrix + 0.1)


def ending(study: Walk) -> bytes:
    """Return the bytes of the last snapshot of an undisturbed walk; naps and work leave no mark on them."""
    return snapshot_bytes(last(replace(study, nap=0.0, rounds=0).run()))
