"""A network brought under a budget: what any widths cost, and channels dropped over all layers at once by imitation."""

__all__ = ["UNITS", "Cut", "CutConfig", "costs_of", "cut_to", "scaled", "share_for", "widths_cost"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.seeds import generator_from
from studio.methods.forward_selection import Stop, select
from studio.methods.growing_state import spaces_of
from studio.methods.pruning_budget import allotted
from studio.methods.pruning_cut import cut, shrunk
from studio.methods.pruning_layer import Layer, chosen, curve_of, looked_at
from studio.methods.pruning_state import smaller
from studio.nets.costs import COUNTERS, FETCH, layer_macs
from studio.nets.modes import evaluating
from studio.nets.prefix import Prefix
from studio.nets.spaces import Spaces
from studio.nets.surgery import Change, Edit

UNITS = tuple(COUNTERS)
FETCHES = {"macs": 0.0, "parameters": 1.0, "energy": FETCH}  # what a parameter adds to each cost
STEPS = 16  # of a selection for each neuron there is; an error that has not vanished by then hardly falls any more
HALVINGS = 50
MOST = 64.0  # times as wide: more is not looked for
Cost = Callable[[Mapping[int, float]], float]


@dataclass(frozen=True)
class CutConfig:
    """How channels are chosen: on so many `examples`, at most `positions` places of each, by one of the `RULES`."""

    examples: int = 256
    positions: int = 16
    rule: str = "line_search"


@dataclass(frozen=True, eq=False)
class Cut:
    """A network after channels were dropped: the edits that made it, and every changed space's `Change`.

    `errors` are those of each growable space's imitation, relative to the square of its readers' outputs, 0 where all
    channels stayed. `passes` bounds how often an example was run through the network from end to end.
    """

    network: nn.Module
    edits: tuple[Edit, ...]
    changes: dict[int, Change]
    errors: tuple[float, ...]
    passes: int


def costs_of(curve: Float[Tensor, "k 7"], unit: str) -> Float[Tensor, " k"]:
    """Return what the network cost at each measurement of a growing network's curve, in a unit of `UNITS`."""
    return curve[:, 2] * (unit != "parameters") + FETCHES[unit] * curve[:, 3]


def widths_cost(network: nn.Module, spaces: Spaces, example: Tensor, unit: str) -> Cost:
    """Return the function that tells what the network would cost with other widths (a channel count a space).

    Every tensor costs a product over its axes, so that no network is built; spaces that are not named keep their size.
    The counts are exact, and fractions of channels are allowed.
    """
    layers = {} if unit == "parameters" else layer_macs(network, example)
    prices = {f"{name}.weight": price for name, price in layers.items()}
    for name, parameter in network.named_parameters():
        prices[name] = prices.get(name, 0.0) + FETCHES[unit] * parameter.numel()
    rest = COUNTERS[unit](network, example) - sum(prices.values())

    def cost(widths: Mapping[int, float]) -> float:
        shares = dict.fromkeys(prices, 1.0)
        for axis in spaces.axes:
            if axis.tensor in shares:
                old = sum(spaces[part.space].size * part.expansion for part in axis.layout)
                new = sum(widths.get(part.space, spaces[part.space].size) * part.expansion for part in axis.layout)
                shares[axis.tensor] *= new / old
        return rest + sum(price * shares[name] for name, price in prices.items())

    return cost


def share_for(cost: Cost, spaces: Spaces, target: float) -> float:
    """Return the share by which all layers together would have to become wider to cost `target`; 0 where they do."""

    def grown(share: float) -> float:
        return cost({space: spaces[space].size * (1 + share) for space in spaces.growable})

    low, high = 0.0, 1.0
    while grown(high) < target and high < MOST:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if grown(middle) <= target else (low, middle)
    return low


def scaled(problem: GrowthProblem, unit: str, budget: float) -> tuple[int, ...]:
    """Return the widest widths in the proportions of the problem's first network that cost at most `budget`.

    Raises `ValueError` where one channel a layer costs more.
    """
    network = problem.network(None, generator_from(0, "only its shape"))
    spaces = spaces_of(problem, network)
    cost = widths_cost(network, spaces, problem.example, unit)

    def widths(factor: float) -> tuple[int, ...]:
        return tuple(max(1, floor(width * factor + 1e-9)) for width in spaces.widths)

    def price(factor: float) -> float:
        return cost(dict(zip(spaces.growable, widths(factor), strict=True)))

    low, high = 0.0, MOST * MOST
    if price(low) > budget:
        raise ValueError(f"budget must be at least {price(low):,.0f}, what one channel a layer costs: allow more")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if price(middle) <= budget else (low, middle)
    return widths(low)


def cut_to(
    network: nn.Module, spaces: Spaces, cost: Cost, budget: float, batches: Sequence[Tensor], config: CutConfig,
    generator: torch.Generator,
) -> Cut:  # fmt: skip
    """Return the network with channels dropped until it costs at most `budget`, by local imitation on some examples.

    All layers are looked at first, and share one error so that the whole fits. Then they are imitated from the input to
    the output, each on what it receives by then: the channels kept are re-weighted, and the weights folded into their
    readers. A network that fits already stays as it is; a smaller one comes in evaluation mode. Raises `ValueError`
    where one channel a layer costs too much.
    """
    whole, count = cost({}), len(spaces.growable)
    if whole <= budget:
        return Cut(network, (), {}, (0.0,) * count, 0)
    with evaluating(network):
        allowed = _allowed(network, spaces, cost, budget / whole, batches, config, generator)
        return _imitated(network, spaces, allowed, batches, config, generator)


def _allowed(
    network: nn.Module, spaces: Spaces, cost: Cost, share: float, batches: Sequence[Tensor], config: CutConfig,
    generator: torch.Generator,
) -> dict[int, int]:  # fmt: skip
    """Return how many vertices each space may keep, from a look at all layers as they are."""
    prefix, curves = Prefix(spaces, batches), {}
    for space in spaces.growable:
        curves[space] = curve_of(*looked_at(network, spaces, space, prefix, config.positions, generator))
    return allotted(curves, "tolerance", share, cost)


def _imitated(
    network: nn.Module, spaces: Spaces, allowed: Mapping[int, int], batches: Sequence[Tensor], config: CutConfig,
    generator: torch.Generator,
) -> Cut:  # fmt: skip
    """Return the network cut layer by layer to so many vertices."""
    prefix, now, left = Prefix(spaces, batches), network, spaces
    edits: tuple[Edit, ...] = ()
    changes: dict[int, Change] = {}
    found: list[float] = []
    for space in spaces.growable:
        layer = Layer(space, *looked_at(now, left, space, prefix, config.positions, generator))
        if allowed[space] >= len(layer.gram):
            found.append(0.0)
            continue
        path = select(layer.gram, config.rule, Stop(allowed[space], steps=STEPS * len(layer.gram), settle=True))
        gates, error = chosen(layer, path, allowed[space])
        now, made = shrunk(now, left, {space: gates})
        changes[space], edits = cut(gates), edits + made
        sizes = (len(changes[at].src) if at in changes else left[at].size for at in left.growable)
        left = smaller(left, tuple(sizes))
        found.append(error)
    return Cut(now, edits, changes, tuple(found), 2 * len(found))
