"""Prune by greedy imitation: a network's layers are replaced by few re-weighted channels that say the same."""

__all__ = ["Prune"]

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

import torch
from torch import nn

from studio.core.controls import Choice, Knob, Range, Value, Words
from studio.core.devices import best_device
from studio.core.papers import FORWARD_SELECTION, Paper
from studio.core.runs import Run
from studio.files.networks import keep_network
from studio.methods.global_imitation import DISTANCES
from studio.methods.pruning import ORDERS, TARGETS, PruneConfig, prune_steps, pruning
from studio.methods.pruning_budget import ALLOCATIONS
from studio.methods.pruning_layer import METHODS
from studio.methods.pruning_state import Pruned, pruned_network
from studio.nets.activations import ACTIVATIONS
from studio.nets.costs import parameters
from studio.nets.network_files import read_network
from studio.nets.spaces import trace
from studio.nets.surgery import Edit
from studio.nets.torchvision_models import MODELS, torchvision_architecture, torchvision_model
from studio.problems.digits import DATA
from studio.problems.growth_images import GrowthImages, growth_images
from studio.problems.own_network import OwnNetwork
from studio.problems.pictures import BATCH, MOST, PICTURES, SIDE, picture_problem
from studio.problems.pruned_networks import BROUGHT, WHOLE, begun_network, brought_network
from studio.scenes import Scene
from studio.studies.prune_view import prune_curves, pruning_scene
from studio.studies.study import Study

NETWORKS = ("mlp", "vgg", "mobilenet", "resnet", BROUGHT, *MODELS)
HEAVY = 400_000  # parameters above which a network does not fit into snapshots, and so cannot be tuned


@dataclass(frozen=True)
class Prune(Study):
    """A trained network that loses most of its channels: those kept, re-weighted, imitate what all of them gave."""

    name: ClassVar[str] = "prune"
    title: ClassVar[str] = "Prune by imitation"
    shelf: ClassVar[str] = "Networks"
    summary: ClassVar[str] = (
        "Few of a layer's neurons, re-weighted, imitate all of them: chosen one by one by exact line search, and the "
        "network is really smaller."
    )
    papers: ClassVar[tuple[Paper, ...]] = (FORWARD_SELECTION,)
    files: ClassVar[tuple[str, ...]] = (".safetensors",)
    largest: ClassVar[int] = 64 * 2**20

    data: Annotated[
        str,
        Choice(*DATA, PICTURES),
        Knob("Data", "digits ship with scikit-learn; some others, and pictures, need a folder of your own"),
    ] = "digits"
    network: Annotated[
        str,
        Choice(*NETWORKS),
        Knob("Network", "trained here first, the file you opened, or torchvision's, which name your own pictures"),
    ] = "mlp"
    method: Annotated[
        str,
        Choice(*METHODS),
        Knob(
            "Method",
            "line_search: the paper's local imitation; fully_corrective: all weights solved anew after each pick; "
            "fixed_step: the earlier greedy; global: by the network's output; the others rank channels one by one",
        ),
    ] = "line_search"
    macs: Annotated[float, Range(0.01, 1.0), Knob("MACs", "share of the multiply-accumulates to keep")] = 0.3
    tolerance: Annotated[
        float,
        Range(0.0, 1.0),
        Knob("Tolerance", "an imitated layer ends at this error relative to its output; 0: never earlier"),
    ] = 0.0
    training: Annotated[int, Range(0, 20_000), Knob("Training", "steps before pruning")] = 400
    after: Annotated[int, Range(0, 20_000), Knob("Tuning", "steps after the last layer")] = 60
    between: Annotated[int, Range(0, 2000), Knob("Tuning between", "steps after each layer", advanced=True)] = 0
    channels: Annotated[
        float, Range(0.01, 1.0), Knob("Channels", "largest share of its channels a layer keeps", advanced=True)
    ] = 1.0
    target: Annotated[
        str,
        Choice(*TARGETS),
        Knob(
            "Target",
            "same_inputs: what the whole layer makes of what it now receives; original: what it made of the original's",
            advanced=True,
        ),
    ] = "same_inputs"
    allocation: Annotated[
        str, Choice(*ALLOCATIONS), Knob("Allocation", "layers share an error, or a share of channels", advanced=True)
    ] = "tolerance"
    order: Annotated[str, Choice(*ORDERS), Knob("Order", "of the layers, from the input or from the output",
                                               advanced=True)] = "forward"  # fmt: skip
    removal: Annotated[bool, Knob("Removal", "a step may also shrink or remove a channel", advanced=True)] = True
    refit: Annotated[
        bool, Knob("Refit", "solve all weights of the layers that read the kept channels anew, not in the paper")
    ] = False
    distance: Annotated[str, Choice(*DISTANCES), Knob("Distance", "of outputs, in global imitation", advanced=True)] = (
        "mse"
    )
    screen: Annotated[
        int, Range(0, 512), Knob("Screen", "candidates run a step in global imitation, 0: all", advanced=True)
    ] = 10
    examples: Annotated[
        int, Range(1, 4096, log=True), Knob("Calibration", "examples on which imitation is measured", advanced=True)
    ] = 256
    positions: Annotated[
        int, Range(1, 1024, log=True), Knob("Positions", "of each picture where layers are read", advanced=True)
    ] = 16
    width: Annotated[float, Range(0.05, 8.0), Knob("Width", "times the network's usual widths", advanced=True)] = 1.0
    count: Annotated[int, Range(20, 50_000, log=True), Knob("Training examples", advanced=True)] = 1200
    activation: Annotated[str, Choice(*ACTIVATIONS), Knob("Activation", advanced=True)] = "relu"
    batch: Annotated[int, Range(8, 4096, log=True), Knob("Batch", advanced=True)] = 128
    rate: Annotated[float, Range(1e-5, 0.3, log=True), Knob("Learning rate", "of training", advanced=True)] = 3e-3
    tuning_rate: Annotated[float, Range(1e-6, 0.3, log=True), Knob("Tuning rate", advanced=True)] = 1e-3
    frames: Annotated[int, Range(1, 200), Knob("Frames", "in which a layer's selection is shown", advanced=True)] = 16
    file: Annotated[str, Words(64), Knob("File", "checksum of the network you opened", advanced=True)] = ""
    device: Annotated[str, Choice("auto", "cpu", "cuda"), Knob("Device", advanced=True)] = "auto"

    def run(self, start: Pruned | None = None) -> Run[Pruned]:
        """Return the run, from the untrained network (or the file's) or on from a snapshot.

        Raises `ValueError`, in one sentence, where data are missing, or the network does not fit them or the knobs.
        """
        problem = self._problem()
        problem = problem if isinstance(problem, OwnNetwork) else problem.to(best_device(self.device))
        network = self._network(problem)
        own = self._own(network)
        return pruning(problem, self._config(problem, own), network, self.seed, own, start)

    def view(self, snapshot: Pruned) -> tuple[Scene, ...]:
        """Return the layers, the newest layer's hull and weights, the decay of errors, and accuracy against cost."""
        return pruning_scene(snapshot, _names(self), self.method), *prune_curves(snapshot)

    def network_of(self, snapshot: Pruned) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Return the pruned network of a snapshot, and the edits that made it from the trained one."""
        problem = self._problem()
        network, edits = pruned_network(problem, snapshot, self._network(problem))
        return network.cpu(), edits

    @classmethod
    def opened(cls, data: bytes) -> tuple[dict[str, Value], str]:
        """Return the knobs that make the network of a file the one to prune, and a sentence on what it is.

        Raises `ValueError`, in one sentence, for what is no network file.
        """
        network, _ = read_network(data)
        name, size = keep_network(data), parameters(network)
        knobs: dict[str, Value] = {"network": BROUGHT, "file": name, "training": 0}
        if size > HEAVY:
            knobs |= {"after": 0, "between": 0}
        layers = sum(1 for module in network.modules() if next(module.parameters(recurse=False), None) is not None)
        return knobs, f"Read a network of {layers:,} layers and {size:,} parameters: choose the data it was trained on."

    def baseline(self) -> "Prune | None":
        """Return the same budget with channels ranked by the size of their weights; None where this is it."""
        return None if self.method == "magnitude" else replace(self, method="magnitude", allocation="uniform")

    def forecast(self) -> str:
        """Return the sizes, the steps and the device; a `ValueError` where a run cannot be."""
        problem = self._problem()
        network = self._network(problem)
        own, layers = self._own(network), len(problem.spaces(network).growable)
        where = "the GPU" if best_device(self.device).type != "cpu" else "the CPU"
        return (
            f"{parameters(network):,} parameters in {layers} layers that can lose channels; "
            f"{prune_steps(self._config(problem, own), layers):,} steps on {len(problem.inputs):,} examples on {where}."
        )

    @classmethod
    def tiny(cls) -> Self:
        """Return a narrow perceptron, hardly trained, in three frames."""
        return cls(training=3, after=2, frames=3, width=0.08, count=80, batch=40, examples=40)

    def _problem(self) -> GrowthImages | OwnNetwork:
        if self.network in MODELS and self.data != PICTURES:
            raise ValueError(f"network {self.network!r} names pictures of your own: choose the data 'pictures'")
        if self.data == PICTURES:
            if self.network not in MODELS:
                raise ValueError(f"data 'pictures' have no labels: choose the network {' or '.join(MODELS)}")
            count, batch, device = min(self.count, MOST), min(self.batch, BATCH), best_device(self.device)
            return picture_problem(torchvision_model(self.network), SIDE, count, batch, self.seed, device)
        kind = self.network if self.network in WHOLE else "mlp" if self.data in ("moons", "spirals") else "vgg"
        return _drawn(self.data, kind, self.activation, self.count, self.batch, self.seed)

    def _network(self, problem: GrowthImages | OwnNetwork) -> nn.Module:
        if isinstance(problem, OwnNetwork):
            return problem.seed_network
        if self.network == BROUGHT:
            return brought_network(problem, self.file)
        return begun_network(problem, self.width, self.seed)

    def _own(self, network: nn.Module) -> bool:
        if parameters(network) <= HEAVY:
            return True
        if self.network != BROUGHT and self.network not in MODELS:
            raise ValueError(
                f"width of {self.width:g} makes {parameters(network):,} parameters, and snapshots hold {HEAVY:,}: take "
                "a smaller one"
            )
        if self.training or self.between or self.after or self.refit:
            raise ValueError(
                f"a network of {parameters(network):,} parameters keeps its weights: set all training to 0, refit off"
            )
        return False

    def _config(self, problem: GrowthImages | OwnNetwork, own: bool) -> PruneConfig:
        return PruneConfig(
            method=self.method, target=self.target, order=self.order, macs=self.macs, channels=self.channels,
            tolerance=self.tolerance, allocation=self.allocation, removal=self.removal, distance=self.distance,
            screen=self.screen, examples=min(self.examples, len(problem.inputs)), positions=self.positions,
            frames=self.frames, training=self.training, between=self.between, after=self.after, rate=self.rate,
            tuning_rate=self.tuning_rate, refit=self.refit, rates=own,
        )  # fmt: skip


@lru_cache(maxsize=4)
def _drawn(data: str, network: str, activation: str, count: int, batch: int, seed: int) -> GrowthImages:
    return growth_images(data, network, activation, "average", count, batch, seed)


@lru_cache(maxsize=8)
def _names(study: Prune) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the names of the layers that can be pruned, and of those that cannot with the reason."""
    if study.network in MODELS:
        spaces = trace(torchvision_architecture(study.network), torch.zeros(2, 3, SIDE, SIDE))
    else:
        problem = study._problem()
        spaces = problem.spaces(study._network(problem))
    return (
        tuple(spaces[space].name for space in spaces.growable),
        tuple((space.name, space.frozen) for space in spaces.spaces if space.frozen),
    )
