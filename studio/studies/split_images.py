"""Split a classifier: a tiny network learns pictures or point clouds and grows where it is worth it."""

__all__ = ["SplitImages"]

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

from torch import nn

from studio.core.controls import Choice, Knob, Range
from studio.core.devices import best_device
from studio.core.papers import FAST_SPLITTING, SIGNED_SPLITTING, SPLITTING, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.growing import Grown, growing, grown_network, growth_steps
from studio.methods.growth_round import METHODS, GrowthConfig
from studio.nets.activations import ACTIVATIONS
from studio.nets.families import FAMILIES, POOLS
from studio.nets.surgery import Edit
from studio.problems.growth_images import GROWTH_DATA, GrowthImages, growth_images
from studio.scenes import Scene
from studio.studies.growth_view import growth_curves, growth_network
from studio.studies.study import Study


@dataclass(frozen=True)
class SplitImages(Study):
    """A small network that learns to classify and grows between stages of training, watched neuron by neuron."""

    name: ClassVar[str] = "split_images"
    title: ClassVar[str] = "Split a classifier"
    shelf: ClassVar[str] = "Networks"
    summary: ClassVar[str] = (
        "A tiny network learns, stalls, and grows where splitting a neuron lowers the loss most, or most for its cost."
    )
    papers: ClassVar[tuple[Paper, ...]] = (SPLITTING, FAST_SPLITTING, SIGNED_SPLITTING)

    data: Annotated[
        str, Choice(*GROWTH_DATA), Knob("Data", "digits ship with scikit-learn; some others need a folder of your own")
    ] = "digits"
    family: Annotated[
        str, Choice(*FAMILIES), Knob("Network", "mlp, vgg and mobilenet see pictures, pointnet sees point clouds")
    ] = "mlp"
    method: Annotated[
        str,
        Choice(*METHODS),
        Knob(
            "Method",
            "s2d: equal copies along the lowest curvature; energy: the same, for a budget of cost; s3d: signed copies; "
            "random: split anyhow; net2net: noisy copies; new: random neurons; scratch: the last size from the start",
        ),
    ] = "s2d"
    rounds: Annotated[int, Range(1, 20), Knob("Rounds", "how often the network may grow")] = 5
    stage: Annotated[int, Range(1, 2000), Knob("Steps a stage", "training steps between two rounds")] = 150
    share: Annotated[
        float, Range(0.05, 2.0), Knob("Growth", "new neurons (or cost) a round, as a share of what there is")
    ] = 0.4
    eps: Annotated[float, Range(1e-4, 1.0, log=True), Knob("Step size", "how far copies move apart")] = 0.1
    training: Annotated[int, Range(20, 20_000, log=True), Knob("Training examples")] = 1200
    activation: Annotated[
        str,
        Choice(*ACTIVATIONS),
        Knob("Activation", "with relu's kink predictions only rank neurons", advanced=True),
    ] = "silu"
    pool: Annotated[str, Choice(*POOLS), Knob("Pooling", "max has kinks too", advanced=True)] = "average"
    batch: Annotated[int, Range(8, 4096, log=True), Knob("Batch", advanced=True)] = 128
    rate: Annotated[
        float, Range(1e-5, 0.3, log=True), Knob("Learning rate", "of Adam; falls to a tenth in a stage", advanced=True)
    ] = 0.02
    decay: Annotated[float, Range(0.0, 0.1), Knob("Weight decay", advanced=True)] = 1e-4
    cost: Annotated[str, Choice("macs", "parameters", "energy"), Knob("Cost", "what 'energy' saves", advanced=True)] = (
        "macs"
    )
    cap: Annotated[int, Range(1, 512), Knob("Widest", "neurons a layer may have", advanced=True)] = 128
    spectrum: Annotated[
        str,
        Choice("lanczos", "rayleigh"),
        Knob("Eigenvalues", "lanczos: exact on a batch; rayleigh: the paper's descent over batches", advanced=True),
    ] = "lanczos"
    copies: Annotated[int, Range(2, 4), Knob("Copies", "of one neuron at most, in s3d", advanced=True)] = 4
    search: Annotated[
        bool, Knob("Search the step size", "take the best measured of 1/4, 1/2, 1, 2 and 4 times it", advanced=True)
    ] = False
    c: Annotated[float, Range(1.0, 5.0), Knob("Mass", "bound on absolute weights in s3d", advanced=True)] = 3.0
    device: Annotated[str, Choice("auto", "cpu", "cuda"), Knob("Device", advanced=True)] = "auto"

    def run(self, start: Grown | None = None) -> Run[Grown]:
        """Return the run, from the first network or on from a snapshot.

        Raises `ValueError`, in one sentence, where data are missing or do not fit the network.
        """
        problem, config = self._problem().to(best_device(self.device)), self._config()
        widths = None
        if self.method == "scratch":
            widths = [min(self.cap, round(width * (1 + self.share) ** self.rounds)) for width in problem.start]
        return growing(problem, config, generator_from(self.seed, "split images"), start, widths)

    def view(self, snapshot: Grown) -> tuple[Scene, ...]:
        """Return the network and its curves."""
        title = f"{sum(snapshot.widths)} neurons, {100 * float(snapshot.curve[-1, 6]):.1f} % right"
        problem = self._problem()
        size = " x ".join(str(side) for side in problem.shape[1:])
        ends = (
            "256 points" if self.family == "pointnet" else f"{size} pixels" if size else "x, y",
            f"{len(problem.classes)} classes",
        )
        drawn = growth_network(problem, snapshot, self._config(), title, ends)
        return drawn, *growth_curves(snapshot, "Accuracy")

    def network_of(self, snapshot: Grown) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Return the grown network of a snapshot, and the edits that grew it."""
        return grown_network(self._problem(), snapshot)

    def baseline(self) -> "SplitImages | None":
        """Return the same growth with random splits; None where this is it."""
        return None if self.method == "random" else replace(self, method="random")

    def forecast(self) -> str:
        """Return the sizes and the device; a `ValueError` where a run cannot be."""
        problem, config = self._problem(), self._config()
        where = "the GPU" if best_device(self.device).type != "cpu" else "the CPU"
        return (
            f"Begins with widths {', '.join(map(str, problem.start))} and grows {self.rounds} times by about "
            f"{self.share:.0%}; {growth_steps(config):,} steps on {problem.examples:,} examples, on {where}."
        )

    @classmethod
    def tiny(cls) -> Self:
        """Return two short stages on few digits with a round between them."""
        return cls(rounds=1, stage=3, training=80, batch=40)

    def _problem(self) -> GrowthImages:
        return _drawn(self.data, self.family, self.activation, self.pool, self.training, self.batch, self.seed)

    def _config(self) -> GrowthConfig:
        scratch = self.method == "scratch"
        return GrowthConfig(
            method=self.method, rounds=0 if scratch else self.rounds,
            stage=self.stage * (self.rounds + 1) if scratch else self.stage, rate=self.rate, decay=self.decay,
            eps=self.eps, share=self.share, cost=self.cost, cap=self.cap, spectrum=self.spectrum, c=self.c,
            copies=self.copies, search=self.search,
        )  # fmt: skip


@lru_cache(maxsize=4)
def _drawn(data: str, network: str, activation: str, pool: str, training: int, batch: int, seed: int) -> GrowthImages:
    return growth_images(data, network, activation, pool, training, batch, seed)
