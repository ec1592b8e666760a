"""Grow and prune: a network goes up and down in size under one budget, growing where it helps, pruned where it may."""

__all__ = ["GrowAndPrune"]

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

import numpy as np
from torch import nn

from studio.core.controls import Choice, Knob, Range
from studio.core.devices import best_device
from studio.core.papers import FAST_SPLITTING, FIREFLY, FORWARD_SELECTION, SPLITTING, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.firefly import FireflyConfig
from studio.methods.grow_and_prune import PLANS, GrowAndPruneConfig, Reshaped, grow_and_prune, largest, total_steps
from studio.methods.grow_and_prune_budget import UNITS, CutConfig, costs_of
from studio.methods.growing import grown_network
from studio.methods.growth_round import GrowthConfig
from studio.nets.activations import ACTIVATIONS
from studio.nets.costs import COUNTERS
from studio.nets.families import FAMILIES
from studio.nets.surgery import Edit
from studio.problems.growth_images import GROWTH_DATA, GrowthImages, growth_images
from studio.scenes import Curves, Scene, Series
from studio.studies.growth_view import FLOOR, growth_network
from studio.studies.study import Study

GROWTHS = ("s2d", "energy", "firefly", "random")
RULES = ("line_search", "fully_corrective")
NAMES = {"macs": "MACs", "parameters": "parameters", "energy": "energy"}
LABELS = {"macs": "multiply-accumulates", "parameters": "parameters", "energy": "energy (a weight fetched at 100 MACs)"}


@dataclass(frozen=True)
class GrowAndPrune(Study):
    """A small network that grows above a budget and is pruned back to it by imitation, in turn, while it learns."""

    name: ClassVar[str] = "grow_and_prune"
    title: ClassVar[str] = "Grow and prune"
    shelf: ClassVar[str] = "Networks"
    summary: ClassVar[str] = (
        "A network grows where that lowers the loss most and loses channels that few others can imitate, in turn, "
        "under one budget of energy."
    )
    papers: ClassVar[tuple[Paper, ...]] = (SPLITTING, FAST_SPLITTING, FIREFLY, FORWARD_SELECTION)

    data: Annotated[
        str, Choice(*GROWTH_DATA), Knob("Data", "digits ship with scikit-learn; some others need a folder of your own")
    ] = "digits"
    family: Annotated[
        str, Choice(*FAMILIES), Knob("Network", "mlp, vgg and mobilenet see pictures, pointnet sees point clouds")
    ] = "mlp"
    plan: Annotated[
        str,
        Choice(*PLANS),
        Knob(
            "Plan",
            "both: up to the ceiling and down to the budget; grow: up to the budget only; prune: train at the "
            "ceiling's size, then down; scratch: train at the budget's size. All train for equally many steps",
        ),
    ] = "both"
    method: Annotated[
        str,
        Choice(*GROWTHS),
        Knob(
            "Growth",
            "s2d: splits along the lowest curvature; energy: the same, for what they cost; firefly: splits and new "
            "neurons compete; random: split anyhow",
        ),
    ] = "energy"
    budget: Annotated[
        float, Range(1.0, 200.0, log=True), Knob("Budget", "cost at the end, times that of the first small network")
    ] = 6.0
    ceiling: Annotated[
        float, Range(1.0, 8.0), Knob("Ceiling", "cost allowed between growth and pruning, times the budget")
    ] = 1.5
    cycles: Annotated[int, Range(1, 10), Knob("Cycles", "of growth and pruning")] = 3
    rounds: Annotated[int, Range(1, 10), Knob("First rounds", "of growth, up to the first ceiling")] = 3
    stage: Annotated[int, Range(1, 2000), Knob("Steps a stage", "training steps before each growth or pruning")] = 60
    last: Annotated[int, Range(1, 20_000), Knob("Last stage", "training steps after the last of them")] = 120
    unit: Annotated[
        str,
        Choice(*UNITS),
        Knob("Cost", "energy: multiply-accumulates, and 100 for every weight that is fetched"),
    ] = "energy"
    eps: Annotated[float, Range(1e-4, 1.0, log=True), Knob("Step size", "how far copies move apart", advanced=True)] = (
        0.1
    )
    layers: Annotated[int, Range(0, 3), Knob("New layers", "a round of firefly may insert", advanced=True)] = 0
    rule: Annotated[
        str,
        Choice(*RULES),
        Knob("Imitation", "by exact line search, or all weights solved anew after each pick", advanced=True),
    ] = "line_search"
    examples: Annotated[
        int, Range(1, 4096, log=True), Knob("Calibration", "examples on which imitation is measured", advanced=True)
    ] = 256
    positions: Annotated[
        int, Range(1, 1024, log=True), Knob("Positions", "of each picture where layers are read", advanced=True)
    ] = 16
    training: Annotated[int, Range(20, 20_000, log=True), Knob("Training examples", advanced=True)] = 1200
    activation: Annotated[
        str,
        Choice(*ACTIVATIONS),
        Knob("Activation", "with relu's kink predictions only rank neurons", advanced=True),
    ] = "silu"
    batch: Annotated[int, Range(8, 4096, log=True), Knob("Batch", advanced=True)] = 128
    rate: Annotated[
        float, Range(1e-5, 0.3, log=True), Knob("Learning rate", "of Adam; falls to a tenth in a stage", advanced=True)
    ] = 0.02
    decay: Annotated[float, Range(0.0, 0.1), Knob("Weight decay", advanced=True)] = 1e-4
    cap: Annotated[int, Range(1, 512), Knob("Widest", "neurons a layer may grow to", advanced=True)] = 128
    device: Annotated[str, Choice("auto", "cpu", "cuda"), Knob("Device", advanced=True)] = "auto"

    def run(self, start: Reshaped | None = None) -> Run[Reshaped]:
        """Return the run, from the first network or on from a snapshot.

        Raises `ValueError`, in one sentence, where data are missing or do not fit the network, or it is too large.
        """
        problem = self._problem()
        config, placed = self._config(problem), problem.to(best_device(self.device))
        return grow_and_prune(placed, config, generator_from(self.seed, "grow and prune"), start)

    def view(self, snapshot: Reshaped) -> tuple[Scene, ...]:
        """Return the network, its way on the axis of cost, its cost while it trained, and the loss."""
        problem = self._problem()
        config = self._config(problem)
        cost = float(costs_of(snapshot.curve[-1:], self.unit))
        title = (
            f"{sum(snapshot.widths)} neurons, {cost / config.budget:.0%} of the budget, "
            f"{100 * float(snapshot.curve[-1, 6]):.1f} % right"
        )
        size = " x ".join(str(side) for side in problem.shape[1:])
        ends = (
            "256 points" if self.family == "pointnet" else f"{size} pixels" if size else "x, y",
            f"{len(problem.classes)} classes",
        )
        drawn = growth_network(problem, snapshot, replace(config.growth, cost=self.unit, unit=self.unit), title, ends)
        return drawn, *_curves(snapshot, config)

    def network_of(self, snapshot: Reshaped) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Return the network of a snapshot, and the edits that grew and pruned it."""
        return grown_network(self._problem(), snapshot)

    def baseline(self) -> "GrowAndPrune | None":
        """Return the plan that only grows, up to the same budget; None where this is it."""
        return None if self.plan == "grow" else replace(self, plan="grow")

    def forecast(self) -> str:
        """Return the budget, the steps and the device; a `ValueError` where a run cannot be."""
        problem = self._problem()
        config = self._config(problem)
        widest = ", ".join(map(str, largest(problem, config)))
        where = "the GPU" if best_device(self.device).type != "cpu" else "the CPU"
        return (
            f"A budget of {config.budget:,.0f} ({LABELS[self.unit]}), widths up to about {widest}; "
            f"{total_steps(config):,} steps on {problem.examples:,} examples, on {where}."
        )

    @classmethod
    def tiny(cls) -> Self:
        """Return one short way up and down on few digits."""
        return cls(cycles=1, rounds=1, stage=3, last=3, budget=1.4, training=80, batch=40, examples=40)

    def _problem(self) -> GrowthImages:
        return _drawn(self.data, self.family, self.activation, self.training, self.batch, self.seed)

    def _config(self, problem: GrowthImages) -> GrowAndPruneConfig:
        growth = GrowthConfig(
            method=self.method, rate=self.rate, decay=self.decay, eps=self.eps, cap=self.cap,
            firefly=FireflyConfig(layers=self.layers),
        )  # fmt: skip
        return GrowAndPruneConfig(
            budget=self.budget * _seed_cost(problem, self.unit), plan=self.plan, cycles=self.cycles,
            rounds=self.rounds, stage=self.stage, last=self.last, ceiling=self.ceiling, unit=self.unit, growth=growth,
            cut=CutConfig(min(self.examples, self.training), self.positions, self.rule),
        )  # fmt: skip


@lru_cache(maxsize=4)
def _drawn(data: str, network: str, activation: str, training: int, batch: int, seed: int) -> GrowthImages:
    return growth_images(data, network, activation, "average", training, batch, seed)


@lru_cache(maxsize=16)
def _seed_cost(problem: GrowthImages, unit: str) -> float:
    """Return what the problem's first network costs."""
    return float(COUNTERS[unit](problem.network(None, generator_from(0, "only its shape")), problem.example))


def _curves(snapshot: Reshaped, config: GrowAndPruneConfig) -> tuple[Curves, ...]:
    """Return accuracy and loss against cost, with growth and pruning marked, cost against work, and the loss."""
    cost = costs_of(snapshot.curve, config.unit).numpy()
    neurons, work, loss, right = (snapshot.curve[:, column].numpy() for column in (1, 4, 5, 6))
    loss, right = np.maximum(loss, FLOOR), 100 * right
    moved = np.diff(neurons, prepend=neurons[:1])
    every = snapshot.losses.double().clamp(min=FLOOR).numpy()
    ran = np.arange(1, len(every) + 1, dtype=np.float64)
    span = np.array([0.0, max(float(work[-1]), 1.0)])
    lines = {
        "network": (work, cost),
        "budget": (span, np.full(2, config.budget)),
        "ceiling": (span, np.full(2, config.most)),
    }
    against, along = NAMES[config.unit], LABELS[config.unit]
    training = Curves("Training loss", "training step", "loss", (Series("loss", ran, every),), log_y=True)
    return (
        Curves(f"Accuracy against {against}", along, "% right", _way(cost, right, moved)),
        Curves(f"Loss against {against}", along, "loss", _way(cost, loss, moved), log_y=True),
        Curves(
            "Cost against work", "multiply-accumulates spent on training", against,
            tuple(Series(name, *line) for name, line in lines.items()),
        ),
        *((training,) if len(ran) else ()),
    )  # fmt: skip


def _way(cost: np.ndarray, value: np.ndarray, moved: np.ndarray) -> tuple[Series, ...]:
    """Return the way of a network over the axis of cost, with dots where a growth and where a pruning ended."""
    ends = {"grown": moved > 0, "pruned": moved < 0}
    dots = (Series(name, cost[at], value[at], dots=True) for name, at in ends.items() if at.any())
    return (Series("network", cost, value), *dots)
