"""Conformers: a molecule's shapes, spread over its torsions and minimised, with the energy of a real force field."""

__all__ = ["Conformers"]

import dataclasses
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np

from studio.core.controls import Choice, Knob, Range, Value, Words
from studio.core.devices import best_device
from studio.core.papers import HARMLESS, Paper
from studio.core.runs import Run
from studio.methods.conformer_search import STARTS, Search, Shapes, conformer_search
from studio.methods.diversity import ENERGIES
from studio.problems.chemist import Chemist
from studio.problems.chemistry import FIELDS
from studio.problems.molecule_shapes import molecule_shapes
from studio.scenes import Curves, Scene, Series
from studio.studies.conformers_view import molecule_scene, trade_off
from studio.studies.study import Study

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
LACTONE = "CC[C@H]1OC(=O)[C@H](C)[C@@H](O)[C@H](C)[C@@H](O)[C@](C)(O)C[C@@H](C)C(=O)[C@H](C)[C@@H](O)[C@]1(C)O"
EXAMPLES = {
    "aspirin": ASPIRIN,
    "ibuprofen": "CC(C)Cc1ccc([C@H](C)C(=O)O)cc1",
    "diglyme": "COCCOCCOC",
    "amlodipine": "CCOC(=O)C1=C(COCCN)NC(C)=C([C@@H]1c1ccccc1Cl)C(=O)OC",
    "a macrolide": LACTONE,
}


@dataclass(frozen=True)
class Conformers(Study):
    """The shapes of one molecule: few geometries embedded, spread over the torsions without harm, minimised."""

    name: ClassVar[str] = "conformers"
    title: ClassVar[str] = "Conformers"
    shelf: ClassVar[str] = "Molecules and meshes"
    summary: ClassVar[str] = (
        "A molecule's bonds turn. Its shapes start together, push each other apart as far as the energy allows, and "
        "settle in different minima."
    )
    papers: ClassVar[tuple[Paper, ...]] = (HARMLESS,)
    files: ClassVar[tuple[str, ...]] = (".sdf", ".mol", ".smi")

    molecule: Annotated[
        str,
        Words(200_000, tuple(EXAMPLES.values()), tuple(EXAMPLES)),
        Knob("Molecule", "a SMILES of at most 2,000 characters, or a mol block"),
    ] = EXAMPLES["amlodipine"]
    conformers: Annotated[int, Range(1, 256), Knob("Conformers", "members of the population")] = 24
    method: Annotated[
        str,
        Choice("ceiling", "max", "sum", "point", "linear", "plain"),
        Knob(
            "Method",
            "ceiling: harmless, may climb a while and so crosses barriers; max, sum, point: harmless at every step; "
            "linear: a weighted sum; plain: minimised only",
        ),
    ] = "ceiling"
    start: Annotated[
        str,
        Choice(*STARTS),
        Knob("Start", "few: some embedded, the others spread from them; all: each embedded; one: one geometry"),
    ] = "few"
    steps: Annotated[int, Range(1, 500), Knob("Steps", "of spreading; minimising goes on until all rest")] = 30
    width: Annotated[
        float,
        Range(0.0, 500.0),
        Knob("Ceiling", "kcal/mol above the lowest that members may climb at first, falling to 0"),
    ] = 40.0
    field: Annotated[
        str, Choice(*FIELDS), Knob("Force field", "MMFF94s and MMFF94 are ours; UFF, by RDKit, knows every element")
    ] = "MMFF94s"
    alike: Annotated[
        float, Range(0.01, 5.0), Knob("Same shape", "heavy-atom RMSD in ångström under which two are one shape")
    ] = 0.5
    energy: Annotated[
        str, Choice(*ENERGIES), Knob("Energy", "how crowding is measured, in torsion angles", advanced=True)
    ] = "riesz0"
    kappa: Annotated[
        float, Range(0.0, 0.95), Knob("Budget", "share of each decrease that spreading may spend", advanced=True)
    ] = 0.5
    weight: Annotated[
        float, Range(1e-2, 1e4, log=True), Knob("Weight", "kcal/mol of the energy in the linear method", advanced=True)
    ] = 100.0
    rounds: Annotated[
        int, Range(1, 20_000), Knob("Rounds", "most evaluations of a member while it is minimised", advanced=True)
    ] = 1500
    tolerance: Annotated[
        float,
        Range(1e-5, 1.0, log=True),
        Knob("Rest", "largest force on an atom at rest, kcal/mol/ångström", advanced=True),
    ] = 1e-2
    heavy: Annotated[int, Range(1, 300), Knob("Heavy atoms", "larger molecules are refused", advanced=True)] = 150
    seconds: Annotated[
        float, Range(1.0, 600.0), Knob("RDKit's clock", "seconds it has for each of its answers", advanced=True)
    ] = 30.0
    device: Annotated[str, Choice("auto", "cpu", "cuda"), Knob("Device", advanced=True)] = "cpu"

    def run(self, start: Shapes | None = None) -> Run[Shapes]:
        """Return the search, from the molecule or on from a snapshot of an earlier run.

        Raises `ValueError`, in one sentence, for what is no molecule and one that the force field does not know.
        """
        return self._run(start)

    def _run(self, start: Shapes | None) -> Generator[Shapes, None, None]:
        config = Search(
            members=self.conformers, start=self.start, method=self.method, steps=self.steps, width=self.width,
            energy=self.energy, kappa=self.kappa, weight=self.weight, rounds=self.rounds, tolerance=self.tolerance,
            alike=self.alike,
        )  # fmt: skip
        with Chemist() as chemist:
            problem = molecule_shapes(
                self.molecule, self.field, self.seed, chemist,
                max_heavy=self.heavy, seconds=self.seconds, device=str(best_device(self.device)),
            )  # fmt: skip
            with closing(conformer_search(problem, config, self.seed, start)) as search:
                for snapshot in search:  # noqa: UP028
                    yield snapshot

    @classmethod
    def opened(cls, data: bytes) -> tuple[dict[str, Value], str]:
        """Return the SMILES of the first molecule of a MOL, SDF or SMILES file, stereochemistry from its coordinates.

        Raises `ValueError`, in one sentence, for what is no molecule.
        """
        with Chemist() as chemist:
            molecule = chemist.read(data.decode("utf-8", "replace"))
        name = molecule.title or molecule.smiles
        said = f"Read {name[:80]}: {len(molecule.heavy)} heavy atoms, {len(molecule.torsions)} bonds that turn."
        notes = (f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in molecule.notes)
        return {"molecule": molecule.smiles}, " ".join((said, *notes))

    def view(self, snapshot: Shapes) -> tuple[Scene, ...]:
        """Return the molecule in space, at the end the trade-off of energy and difference, and the energies so far."""
        scene = molecule_scene(snapshot, self.alike)
        moments = np.arange(len(snapshot.lowest), dtype=np.float64)
        lines = (
            Series("mean", moments, snapshot.mean.double().cpu().numpy()),
            Series("lowest", moments, snapshot.lowest.double().cpu().numpy()),
        )
        charts: tuple[Scene, ...] = (Curves("Energy", "step", f"{self.field} kcal/mol", lines),)
        if len(snapshot.gaps):
            turns = np.arange(len(snapshot.gaps), dtype=np.float64)
            gaps = Series("nearest other conformer", turns, snapshot.gaps.double().cpu().numpy())
            charts += (Curves("Spread in torsions", "step of spreading", "distance", (gaps,)),)
        trade = () if not snapshot.distances.numel() else (trade_off(snapshot, scene),)
        return scene, *trade, *charts

    def forecast(self) -> str:
        """Return what a run needs: seconds, mostly RDKit's first geometries."""
        return (
            f"{self.conformers} conformers: seconds for a drug; RDKit may take minutes to embed a hundred atoms. "
            + ("RDKit minimises them." if self.field == "UFF" else "Minimised by our own MMFF94, faster than RDKit's.")
        )

    def baseline(self) -> "Conformers | None":
        """Return as many conformers embedded one by one and minimised (RDKit's way); None where this is it."""
        plain = dataclasses.replace(self, method="plain", start=self.start if self.start == "one" else "all")
        return None if self == plain else plain

    @classmethod
    def tiny(cls) -> Self:
        """Return four conformers of glycol's ether and three steps."""
        return dataclasses.replace(cls(), molecule="COCCO", conformers=4, steps=3, rounds=60)
