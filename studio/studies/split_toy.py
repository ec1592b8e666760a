"""Split a toy: a handful of neurons fit a function, stall, and are split; one can see every one of them."""

__all__ = ["SplitToy"]

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from torch import nn

from studio.core.controls import Choice, Knob, Range
from studio.core.papers import SIGNED_SPLITTING, SPLITTING, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.growing import Grown, growing, grown_network
from studio.methods.growth_round import GrowthConfig
from studio.nets.surgery import Edit
from studio.problems.growth_toys import TOYS, GrowthToy, growth_toy
from studio.render.decisions import signed_map
from studio.scenes import Curves, Images, Scene, Series
from studio.studies.growth_view import growth_curves, growth_network
from studio.studies.study import Study

NEURONS_DRAWN = 7


@dataclass(frozen=True)
class SplitToy(Study):
    """A small network that fits a function with L-BFGS and grows by splitting, signed or not, each time it stalls."""

    name: ClassVar[str] = "split_toy"
    title: ClassVar[str] = "Split a toy"
    shelf: ClassVar[str] = "Networks"
    summary: ClassVar[str] = (
        "One neuron fits what it can and stalls. Splitting steepest descent finds no way on; signed splitting does."
    )
    papers: ClassVar[tuple[Paper, ...]] = (SPLITTING, SIGNED_SPLITTING)

    function: Annotated[
        str,
        Choice(*TOYS),
        Knob("Function", "bump: S2D stalls at one neuron; bumps: fifteen random ones; teacher: a network of the plane"),
    ] = "bump"
    method: Annotated[
        str,
        Choice("s2d", "s3d", "random", "net2net", "new", "scratch"),
        Knob(
            "Method",
            "s2d: equal copies along the lowest curvature; s3d: signed copies; random: split anyhow; net2net: noisy "
            "copies; new: random neurons; scratch: the last size from the start",
        ),
    ] = "s3d"
    rounds: Annotated[int, Range(1, 30), Knob("Rounds", "how often the network may grow")] = 3
    stage: Annotated[int, Range(1, 60), Knob("Steps a stage", "ten iterations of L-BFGS each")] = 15
    share: Annotated[float, Range(0.05, 4.0), Knob("Growth", "new neurons a round, as a share of those there are")] = (
        1.0
    )
    eps: Annotated[float, Range(1e-4, 1.0, log=True), Knob("Step size", "how far copies move apart")] = 0.1
    copies: Annotated[int, Range(2, 4), Knob("Copies", "of one neuron at most, in signed splitting")] = 4
    search: Annotated[
        bool, Knob("Search the step size", "take the best measured of 1/4, 1/2, 1, 2 and 4 times it", advanced=True)
    ] = False
    c: Annotated[
        float, Range(1.0, 5.0), Knob("Mass", "bound on the copies' absolute weights; 1 is s2d", advanced=True)
    ] = 3.0
    cap: Annotated[int, Range(1, 64), Knob("Widest", "neurons a layer may have", advanced=True)] = 32

    def run(self, start: Grown | None = None) -> Run[Grown]:
        """Return the run, from the first network or on from a snapshot."""
        problem, widths = self._problem(), None
        if self.method == "scratch":
            widths = [min(self.cap, round(width * (1 + self.share) ** self.rounds)) for width in problem.start]
        return growing(problem, self._config(), generator_from(self.seed, "split toy"), start, widths)

    def view(self, snapshot: Grown) -> tuple[Scene, ...]:
        """Return the network, the function beside the fit, what the neurons add, and the curves."""
        problem = self._problem()
        network, _ = self.network_of(snapshot)
        ends = ("x", "f(x)") if problem.grid.shape[1] == 1 else ("x, y", "f(x, y)")
        drawn = growth_network(problem, snapshot, self._config(), f"{sum(snapshot.widths)} neurons", ends)
        fit = _line(problem, network, snapshot) if problem.grid.shape[1] == 1 else (_plane(problem, network),)
        return *fit, drawn, *growth_curves(snapshot, "Variance explained")[:2]

    def network_of(self, snapshot: Grown) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Return the grown network of a snapshot, and the edits that grew it."""
        return grown_network(self._problem(), snapshot)

    def baseline(self) -> "SplitToy | None":
        """Return the run to compare with: positive splits beside signed ones, random ones beside those."""
        plainer = {"s3d": "s2d", "s2d": "random"}.get(self.method)
        return None if plainer is None else replace(self, method=plainer)

    def forecast(self) -> str:
        """Return what a run needs: next to nothing."""
        first = ", ".join(map(str, self._problem().start))
        return f"Begins with width {first} and ends with {self.cap} neurons at most, in double precision: seconds."

    @classmethod
    def tiny(cls) -> Self:
        """Return two short stages with a split between them."""
        return cls(function="bumps", rounds=1, stage=2)

    def _problem(self) -> GrowthToy:
        return _toy(self.function, self.seed)

    def _config(self) -> GrowthConfig:
        scratch = self.method == "scratch"
        return GrowthConfig(
            method=self.method, rounds=0 if scratch else self.rounds,
            stage=self.stage * (self.rounds + 1) if scratch else self.stage, optimiser="lbfgs", eps=self.eps,
            share=self.share, cap=self.cap, c=self.c, copies=self.copies, search=self.search,
        )  # fmt: skip


@lru_cache(maxsize=4)
def _toy(function: str, seed: int) -> GrowthToy:
    return growth_toy(function, seed)


@torch.no_grad()
def _line(problem: GrowthToy, network: nn.Module, snapshot: Grown) -> tuple[Curves, ...]:
    """Return the function and the fit, and what single neurons add to it, the strongest of them."""
    x = problem.grid[:, 0].numpy()
    hidden = network.get_submodule("act1")(network.get_submodule("layer1")(problem.grid))
    parts = hidden * network.get_parameter("head.weight")[0]
    strongest = parts.abs().amax(dim=0).argsort(descending=True, stable=True)[:NEURONS_DRAWN].tolist()
    ids = snapshot.ids[0].tolist()
    added = tuple(Series(f"neuron {ids[place]}", x, parts[:, place].numpy()) for place in strongest)
    both = (
        Series("function", x, problem.target[:, 0].numpy()),
        Series("network", x, network(problem.grid)[:, 0].numpy()),
    )
    return Curves("Function and network", "x", "f(x)", both), Curves("What neurons add", "x", "f(x)", added)


@torch.no_grad()
def _plane(problem: GrowthToy, network: nn.Module) -> Images:
    """Return the function and the fit over the plane."""
    side = round(len(problem.grid) ** 0.5)
    maps = [part[:, 0].reshape(side, side).numpy() for part in (problem.target, network(problem.grid))]
    scale = float(np.abs(maps[0]).max())
    return Images(np.stack([signed_map(part / scale) for part in maps]), ("the function", "the network"))
