"""A network that is being pruned, between two steps: as a snapshot that holds all of it, and live."""

__all__ = ["CUT", "TRAINED", "TUNED", "Live", "Pruned", "first_state", "measured", "pruned_network", "rebuilt"]

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.snapshots import Snapshot
from studio.methods.pruning_cut import shrunk
from studio.nets.costs import macs, parameters
from studio.nets.prefix import Prefix
from studio.nets.spaces import Spaces
from studio.nets.surgery import Edit

TRAINED, CUT, TUNED = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned(Snapshot):
    """A network that is trained, pruned layer by layer and tuned again, after a step, and all that is needed to go on.

    `original`: the state of the network that is imitated, in training or trained; none where it comes from a file.
    `state`: that of the pruned network, none where it is the original with the gates folded in. `first`, `second`:
    Adam's moments. Per space that can be pruned, in the order of the network: `gates` (a number a channel, 0 dropped),
    `sizes`, `allotted` (channels it may keep, 0: not known yet), `errors` (of the imitation, relative to the square of
    the layer's output; -1 not yet) and `reasons` for which the selection ended. `layer` is the space in work (-1 none),
    `into` its frame. Of its path, a row a step: `touched`, `gammas`, `kinds` (places in `KINDS`), `path_errors` and
    `kept`; `moments` are the steps whose weights are in the rows of `weights`, `last` the last weights. `positions` are
    the vertices in the plane that shows most of them (a share `shown`), the target at 0. `decay_*`: how errors
    fall with neurons kept, for each number of calibration values and each rule, in this order. `passes` counts runs of
    the network over the calibration examples by global imitation. `curve`: a row a measurement: step, kind (trained,
    cut, tuned), layer, multiply-accumulates, parameters, loss on a probe, accuracy.
    """

    original: tuple[Tensor, ...]
    state: tuple[Tensor, ...]
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    trained: int
    sizes: tuple[int, ...]
    gates: tuple[Tensor, ...]
    allotted: tuple[int, ...]
    errors: tuple[float, ...]
    reasons: tuple[str, ...]
    layer: int
    into: int
    passes: int
    touched: Int[Tensor, " s"]
    gammas: Float[Tensor, " s"]
    kinds: Int[Tensor, " s"]
    path_errors: Float[Tensor, " s"]
    kept: Int[Tensor, " s"]
    moments: Int[Tensor, " m"]
    weights: Float[Tensor, "m n"]
    last: Float[Tensor, " l"]
    positions: Float[Tensor, "p 2"]
    shown: float
    decay_points: tuple[int, ...]
    decay_dimensions: tuple[int, ...]
    decay_rules: tuple[str, ...]
    decay_kept: tuple[Tensor, ...]
    decay_errors: tuple[Tensor, ...]
    losses: Float[Tensor, " t"]
    curve: Float[Tensor, "k 7"]

    @property
    def widths(self) -> tuple[int, ...]:
        """Return how many channels each space has left."""
        return tuple(int((gates != 0).sum()) for gates in self.gates)


@dataclass(eq=False)
class Live:
    """What a run holds between its steps beside the snapshot: networks, their spaces, examples, what was computed.

    `spaces` are the original's, with the sizes that are left. `calibration` and `reference` hold the same examples, run
    as far as they need not be run again through the pruned and the original network. `layer` is what the space in work
    is imitated from, `scores` are a baseline's; `shares` the cost of each layer with a weight, `kept` the channels that
    are left of each space.
    """

    original: nn.Module
    network: nn.Module
    whole: Spaces
    spaces: Spaces
    calibration: Prefix
    reference: Prefix
    shares: dict[str, float]
    kept: dict[int, Tensor]
    optimiser: torch.optim.Optimizer | None = None
    layer: Any = None
    scores: dict[int, Tensor] | None = None


def first_state(total: int, network: nn.Module, spaces: Spaces, own: bool) -> Pruned:
    """Return the snapshot before the first step; `own`: the network is the run's own and travels in snapshots."""
    sizes = spaces.widths
    none, empty = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    return Pruned(
        step=0, total=total, phase="training", original=states(network) if own else (), state=(), first=(), second=(),
        trained=0, sizes=sizes, gates=tuple(torch.ones(size, dtype=torch.float64) for size in sizes),
        allotted=(0,) * len(sizes), errors=(-1.0,) * len(sizes), reasons=("",) * len(sizes), layer=-1, into=0,
        passes=0, touched=empty, gammas=none, kinds=empty, path_errors=none, kept=empty, moments=empty,
        weights=torch.zeros(0, 0, dtype=torch.float64), last=none, positions=torch.zeros(0, 2, dtype=torch.float64),
        shown=0.0, decay_points=(), decay_dimensions=(), decay_rules=(),
        decay_kept=(), decay_errors=(), losses=torch.zeros(0), curve=torch.zeros(0, 7, dtype=torch.float64),
    )  # fmt: skip


def states(network: nn.Module) -> tuple[Tensor, ...]:
    """Return copies of a network's parameters and buffers, on the CPU."""
    return tuple(part.detach().cpu().clone() for part in network.state_dict().values())


def loaded(network: nn.Module, state: tuple[Tensor, ...]) -> nn.Module:
    """Return a network with the parameters and buffers that `states` gave."""
    network.load_state_dict(dict(zip(network.state_dict(), state, strict=True)))
    return network


def rebuilt(original: nn.Module, spaces: Spaces, now: Pruned) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return the pruned network of a snapshot and the edits that made it from the original, which has these spaces."""
    gates = {space: own for space, own in zip(spaces.growable, now.gates, strict=True) if not bool((own == 1).all())}
    network, edits = shrunk(original, spaces, gates) if gates else (copy.deepcopy(original), ())
    return (loaded(network, now.state), edits) if now.state else (network, edits)


def pruned_network(problem: GrowthProblem, now: Pruned, original: nn.Module) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return the pruned network of a snapshot, in evaluation mode, and the edits that made it from the original.

    `original` is any network of the original's shape where the snapshot has its weights, else the network of the file.
    """
    whole = loaded(copy.deepcopy(original), now.original) if now.original else original
    network, edits = rebuilt(whole, problem.spaces(whole), now)
    return network.eval(), edits


def smaller(spaces: Spaces, widths: tuple[int, ...]) -> Spaces:
    """Return the spaces of a network with the sizes that are left of the growable ones."""
    found = list(spaces.spaces)
    for space, width in zip(spaces.growable, widths, strict=True):
        found[space] = replace(found[space], size=width)
    return replace(spaces, spaces=tuple(found))


def measured(problem: GrowthProblem, network: nn.Module, now: Pruned, kind: int) -> Pruned:
    """Return the snapshot with one more row of its curve, measured on a network."""
    inputs, targets = problem.probe(0)
    network.eval()
    with torch.no_grad():
        loss = float(problem.loss(network(inputs), targets))
    cost, size = macs(network, problem.example), parameters(network)
    row = [now.step, kind, now.layer, cost, size, loss, problem.accuracy(network)]
    return replace(now, curve=torch.cat([now.curve, torch.tensor([row], dtype=torch.float64)]))
