"""The state of a growing network between two steps: as a snapshot that holds all of it, and live."""

__all__ = [
    "Grown",
    "Kind",
    "Live",
    "Shape",
    "blank",
    "first_state",
    "inserted",
    "lineages",
    "measured_state",
    "network_of",
    "restored",
    "spaces_of",
    "with_lineages",
    "with_state",
]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot
from studio.methods.growth_round import GrowthConfig
from studio.methods.lineage import Lineage, first_generation
from studio.nets.carry import copied, moments, remember
from studio.nets.costs import macs, parameters
from studio.nets.depth import Insertion, insert
from studio.nets.probes import probed
from studio.nets.spaces import Spaces
from studio.nets.surgery import resized


@dataclass(frozen=True)
class Shape:
    """A grown network without its weights: widths at first and now, and the layers inserted.

    Of each layer: the node, its name, the round it came in, and how many neurons it had then.
    """

    seed_widths: tuple[int, ...]
    widths: tuple[int, ...]
    nodes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rounds: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Grown(Snapshot):
    """A growing network after a step, and all that is needed to go on.

    `state`, `first`, `second`: its parameters and buffers, and Adam's moments of the parameters; `widths`: of its
    growable spaces. `into`: steps done of this round's stage; `trained`: of all stages; `spent`: their MACs. Per
    space, as parallel tuples, what `scenes.Layer` shows, from `ids` to `schemes`. `grew_*`: every space that changed
    in turn: the round, the space, the old channel behind each slot and its coefficient (see `lineage.edits_of`). Of
    the last round's splits, as parallel tuples: space and id of the neuron, scheme, changes of the loss predicted and
    measured. `tried`, `together`: step sizes and changes by all splits at once. `layer_*`: every layer inserted (see
    `depth.Insertion`): behind which node, its name, the round, its neurons and the training steps before then.
    `candidate_*`: what competed in the last round, as `scenes.Candidate`. `changed`: the change of the probe's loss by
    the last round. `curve`: a row for each measurement: step, neurons, MACs, parameters, MACs spent on training, loss
    on a probe, accuracy.
    """

    state: tuple[Tensor, ...]
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    widths: tuple[int, ...]
    round: int
    into: int
    trained: int
    spent: float
    random: Tensor
    ids: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    born: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]
    seed_widths: tuple[int, ...]
    grew_round: tuple[int, ...]
    grew_space: tuple[int, ...]
    grew_src: tuple[Tensor, ...]
    grew_coef: tuple[Tensor, ...]
    low: tuple[Tensor, ...]
    high: tuple[Tensor, ...]
    gains: tuple[Tensor, ...]
    costs: tuple[Tensor, ...]
    schemes: tuple[tuple[str, ...], ...]
    scored: bool
    approximate: bool
    budget: float
    split_spaces: tuple[int, ...]
    split_ids: tuple[int, ...]
    split_schemes: tuple[str, ...]
    split_predicted: tuple[float, ...]
    split_measured: tuple[float, ...]
    curvature: float
    eps: float
    tried: tuple[float, ...]
    together: tuple[float, ...]
    function_change: float
    changed: float
    layer_nodes: tuple[str, ...]
    layer_names: tuple[str, ...]
    layer_rounds: tuple[int, ...]
    layer_sizes: tuple[int, ...]
    layer_joined: tuple[int, ...]
    candidate_layers: tuple[str, ...]
    candidate_kinds: tuple[str, ...]
    candidate_gains: Float[Tensor, " c"]
    candidate_costs: Float[Tensor, " c"]
    candidate_chosen: Bool[Tensor, " c"]
    losses: Float[Tensor, " t"]
    curve: Float[Tensor, "k 7"]

    @property
    def shape(self) -> "Shape":
        """Return what the network is, without its weights."""
        layers = self.layer_nodes, self.layer_names, self.layer_rounds, self.layer_sizes
        return Shape(self.seed_widths, self.widths, *layers)


Kind = TypeVar("Kind", bound=Grown)


@dataclass(eq=False)
class Live:
    """What a run holds between its steps: the network, its optimiser, the next split and the random state behind it."""

    network: nn.Module
    spaces: Spaces
    optimiser: torch.optim.Optimizer | None
    cost: int
    choice: tuple[Any, Tensor] | None = None


def blank(problem: GrowthProblem, shape: Shape) -> nn.Module:
    """Return a network of a shape, with weights of no meaning."""
    generator = generator_from(0, "to be overwritten")
    if not shape.names:
        return problem.network(shape.widths, generator)
    network = problem.network(shape.seed_widths, generator)
    for number in dict.fromkeys(shape.rounds):
        network = inserted(problem, network, shape, number)
    return resized(network, problem.spaces(network), shape.widths)


def inserted(problem: GrowthProblem, network: nn.Module, shape: Shape, round: int) -> nn.Module:
    """Return a network with the layers that came in one round, as wide as they came; itself where none came."""
    layers = [
        Insertion(node, name, size)
        for node, name, number, size in zip(shape.nodes, shape.names, shape.rounds, shape.sizes, strict=True)
        if number == round
    ]
    return insert(network, problem.spaces(network), layers) if layers else network


def network_of(problem: GrowthProblem, now: Grown) -> nn.Module:
    """Return the network of a snapshot, with its weights."""
    network = blank(problem, now.shape)
    network.load_state_dict(dict(zip(network.state_dict(), now.state, strict=True)))
    return network


def spaces_of(problem: GrowthProblem, network: nn.Module) -> Spaces:
    """Return the spaces of a network of the problem, with those marked whose channels turn out to mix."""
    return probed(network, problem.spaces(network), problem.example)


def first_state(
    problem: GrowthProblem, config: GrowthConfig, total: int, generator: torch.Generator, widths: Sequence[int] | None
) -> Grown:
    """Return the snapshot before the first step: the seed network as the generator draws it, measured."""
    network = problem.network(widths, generator)
    spaces = spaces_of(problem, network)
    sizes = spaces.widths
    lineage = first_generation(sizes)
    nothing = tuple(torch.zeros(size, dtype=torch.float64) for size in sizes)
    none = torch.zeros(0, dtype=torch.float64)
    empty = Grown(
        step=0, total=total, phase="training", state=(), first=(), second=(), widths=sizes,
        round=0, into=0, trained=0, spent=0.0, random=generator.get_state(),
        ids=(), parents=(), born=(), shares=(), seed_widths=sizes, grew_round=(), grew_space=(), grew_src=(),
        grew_coef=(), low=nothing, high=nothing, gains=nothing, costs=nothing,
        schemes=tuple(("",) * size for size in sizes), scored=False, approximate=False, budget=0.0,
        split_spaces=(), split_ids=(), split_schemes=(), split_predicted=(), split_measured=(),
        curvature=0.0, eps=config.eps, tried=(), together=(), function_change=0.0,
        changed=0.0, layer_nodes=(), layer_names=(), layer_rounds=(), layer_sizes=(), layer_joined=(),
        candidate_layers=(), candidate_kinds=(), candidate_gains=none, candidate_costs=none,
        candidate_chosen=torch.zeros(0, dtype=torch.bool),
        losses=torch.zeros(0), curve=torch.zeros(0, 7, dtype=torch.float64),
    )  # fmt: skip
    live = Live(network, spaces, None, macs(network, problem.example))
    return measured_state(problem, live, with_lineages(with_state(empty, live), lineage))


def restored(problem: GrowthProblem, now: Grown, optimiser: torch.optim.Optimizer | None, network: nn.Module) -> Live:
    """Return the live network of a snapshot, made by `network_of`, with an optimiser that knows what it knew."""
    if optimiser is not None and now.trained:
        joined = dict(zip(now.layer_names, now.layer_joined, strict=True))
        for (name, parameter), first, second in zip(network.named_parameters(), now.first, now.second, strict=True):
            steps = now.trained - joined.get(name.partition(".")[0], 0)
            remember(optimiser, parameter, steps, first, second)
    return Live(network, spaces_of(problem, network), optimiser, macs(network, problem.example))


def with_state(now: Kind, live: Live) -> Kind:
    """Return the snapshot with copies of the network's tensors and of Adam's moments (0 where there are none yet)."""
    state = tuple(copied(part) for part in live.network.state_dict().values())
    if live.optimiser is None:
        return replace(now, state=state)
    first, second = moments(live.optimiser, live.network)
    return replace(now, state=state, first=first or now.first, second=second or now.second)


def lineages(now: Grown) -> tuple[Lineage, ...]:
    """Return the lineages of a snapshot's spaces."""
    return tuple(Lineage(*each) for each in zip(now.ids, now.parents, now.born, now.shares, strict=True))


def with_lineages(now: Kind, lineage: Sequence[Lineage]) -> Kind:
    """Return the snapshot with these lineages of its spaces."""
    return replace(
        now, ids=tuple(each.ids for each in lineage), parents=tuple(each.parents for each in lineage),
        born=tuple(each.born for each in lineage), shares=tuple(each.shares for each in lineage),
    )  # fmt: skip


def measured_state(problem: GrowthProblem, live: Live, now: Kind) -> Kind:
    """Return the snapshot with one more row of its curve: sizes, costs, loss on a probe, accuracy on the test set."""
    inputs, targets = problem.probe(2 * now.round + 1)
    live.network.eval()
    with torch.no_grad():
        loss = float(problem.loss(live.network(inputs), targets))
    row = [
        now.step, sum(now.widths), live.cost, parameters(live.network), now.spent, loss, problem.accuracy(live.network),
    ]  # fmt: skip
    return replace(now, curve=torch.cat([now.curve, torch.tensor([row], dtype=torch.float64)]))
