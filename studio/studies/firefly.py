"""Firefly: a tiny network grows wider and deeper by whatever lowers the loss most, and shows what competed."""

__all__ = ["Firefly"]

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from studio.core.controls import Choice, Knob, Range
from studio.core.papers import FIREFLY, Paper
from studio.methods.firefly import FireflyConfig
from studio.methods.growth_round import GROWERS, GrowthConfig
from studio.studies.split_images import SplitImages


@dataclass(frozen=True)
class Firefly(SplitImages):
    """A small network that grows between stages of training: split neurons, new neurons and new layers compete."""

    name: ClassVar[str] = "firefly"
    title: ClassVar[str] = "Firefly"
    shelf: ClassVar[str] = "Networks"
    summary: ClassVar[str] = (
        "Split neurons, brand-new neurons and whole new layers compete for every round's budget, by what each of them "
        "promises to take off the loss."
    )
    papers: ClassVar[tuple[Paper, ...]] = (FIREFLY,)

    method: Annotated[
        str,
        Choice(*GROWERS),
        Knob(
            "Method",
            "firefly: the best of all kinds; for comparison s2d, energy, s3d: splits by curvature; random: split "
            "anyhow; net2net: noisy copies; new: random neurons; gradmax: neurons with the largest gradient; scratch: "
            "the last size from the start",
        ),
    ] = "firefly"
    layers: Annotated[int, Range(0, 3), Knob("New layers", "that a round may insert; 0 grows wider only")] = 1
    unit: Annotated[
        str, Choice("neurons", "parameters", "macs"), Knob("Budget", "what the growth of a round is a share of")
    ] = "neurons"
    splits: Annotated[bool, Knob("Split neurons", "let copies of neurons compete", advanced=True)] = True
    fresh: Annotated[bool, Knob("Add neurons", "let brand-new neurons compete", advanced=True)] = True
    candidates: Annotated[
        float, Range(0.5, 10.0), Knob("Candidates", "new ones tried for each that may be taken", advanced=True)
    ] = 2.0
    search_steps: Annotated[
        int, Range(1, 500, log=True), Knob("Search steps", "of optimising all candidates", advanced=True)
    ] = 40
    reach: Annotated[
        float,
        Range(0.001, 2.0, log=True),
        Knob("Reach", "longest fan-out of a new neuron, relative to those there are", advanced=True),
    ] = 0.1
    points: Annotated[int, Range(1, 20), Knob("Path points", "over which a score is averaged", advanced=True)] = 3

    def baseline(self) -> "Firefly | None":
        """Return the same growth with brand-new random neurons; None where this is it."""
        return None if self.method == "new" else replace(self, method="new")

    def _config(self) -> GrowthConfig:
        search = FireflyConfig(
            splits=self.splits, fresh=self.fresh, layers=self.layers, candidates=self.candidates,
            steps=self.search_steps, refined=max(1, self.search_steps // 4), points=self.points, reach=self.reach,
        )  # fmt: skip
        return replace(super()._config(), unit=self.unit, firefly=search)
