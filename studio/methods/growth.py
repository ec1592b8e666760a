"""What the growing methods share: neurons scored, splits planned, the network changed by them, their effect measured.

    replace sigma(theta) by sum_k w_k sigma(theta + eps d_k):    L_new - L = eps^2 gain + O(eps^3)

with gain = 1/2 sum_k w_k d_k . S d_k summed over all neurons split, in whatever layers they are: at this order splits
do not see each other (Wu, Wang and Liu, arXiv 1910.02366). A space whose channels lie in groups grows by one neuron a
group, so its items are the groups' best neurons together, their second best together, and so on.
"""

__all__ = [
    "Item",
    "Planned",
    "Scored",
    "changes_of",
    "fresh_neurons",
    "items",
    "measured",
    "places",
    "predicted",
    "rows",
    "scored",
]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.methods.curvature import Curvature, Spectrum, curvatures
from studio.nets.spaces import Spaces
from studio.nets.surgery import NEW, Change, keep, widen, widened

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Scored:
    """The neurons of one space with both ends of their spectra, and what one more neuron there costs."""

    curvature: Curvature
    spectrum: Spectrum
    cost: float
    groups: int

    @property
    def space(self) -> int:
        """Return the place of the space in the network's spaces."""
        return self.curvature.space


@dataclass(frozen=True, eq=False)
class Item:
    """What a selection takes or leaves as a whole: one neuron, or one of each group."""

    scored: Scored
    neurons: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Planned:
    """One split: copy k of a neuron has reader coefficient `coef[k]` and moves by eps times `moves[k]`.

    `gain` is the coefficient of eps^2 in the change of the loss that the scoring promises (0: nothing was scored).
    """

    space: int
    neuron: int
    scheme: str
    coef: tuple[float, ...]
    moves: Float[Tensor, "k d"]
    gain: float


def scored(
    network: nn.Module, spaces: Spaces, inputs: Tensor, loss: Loss, costs: Mapping[int, float],
    spectrum: Callable[[Curvature], Spectrum],
) -> tuple[Scored, ...]:  # fmt: skip
    """Return every neuron that can be split with both ends of its spectrum, as `spectrum` finds them on a probe batch.

    `costs` are what one more neuron of each space costs.
    """
    return tuple(
        Scored(each, spectrum(each), costs[each.space], spaces[each.space].groups)
        for each in curvatures(network, spaces, inputs, loss)
    )


def items(every: Sequence[Scored], gains: Sequence[Tensor]) -> tuple[list[Item], Tensor, Tensor]:
    """Return what can be selected, with its gain and its cost; `gains` are those of the neurons, space by space."""
    found: list[Item] = []
    totals, costs = [], []
    for each, gain in zip(every, gains, strict=True):
        block = len(gain) // each.groups
        ranked = gain.view(each.groups, block)
        order = torch.arange(block)[None] if each.groups == 1 else ranked.argsort(dim=1, stable=True)
        members = order + block * torch.arange(each.groups)[:, None]
        found += [Item(each, tuple(column)) for column in members.T.tolist()]
        totals.append(gain.cpu()[members].sum(dim=0))
        costs.append(torch.full((block,), each.cost * each.groups, dtype=torch.float64))
    return found, torch.cat(totals).double(), torch.cat(costs)


def places(every: Sequence[Scored], caps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return which space each item belongs to, and how many items of each space `caps[k]` new neurons allow."""
    home = [torch.full((len(each.spectrum.low) // each.groups,), place) for place, each in enumerate(every)]
    return torch.cat(home), torch.tensor([cap // each.groups for cap, each in zip(caps, every, strict=True)])


def predicted(plans: Sequence[Planned], every: Sequence[Curvature]) -> list[float]:
    """Return the gain of each split under these curvatures, which are best those of examples not scored with.

    The smallest of many noisy eigenvalues looks better than it is; another batch does not flatter it.
    """
    gains = {}
    for curvature in every:
        own = [(index, plan) for index, plan in enumerate(plans) if plan.space == curvature.space]
        for copy in range(max((len(plan.coef) for _, plan in own), default=0)):
            at = [(index, plan) for index, plan in own if copy < len(plan.coef)]
            v = torch.zeros(curvature.size, dtype=curvature.loss.dtype, device=curvature.loss.device)
            for _, plan in at:
                v[plan.neuron] = plan.moves[copy].to(v)
            bent = 0.5 * (v * curvature.product(v)).sum(dim=1)
            for index, plan in at:
                gains[index] = gains.get(index, 0.0) + plan.coef[copy] * float(bent[plan.neuron])
    return [gains.get(index, 0.0) for index in range(len(plans))]


def changes_of(spaces: Spaces, plans: Sequence[Planned], eps: float) -> dict[int, Change]:
    """Return the change of each space that makes these splits with step size eps.

    Raises `ValueError` where one neuron is to be split twice in a round: more copies of it are one split of their own.
    """
    if len({(plan.space, plan.neuron) for plan in plans}) < len(plans):
        raise ValueError("a neuron can be split once in a round: plan three or four copies of it as one split")
    changes = {}
    for space in dict.fromkeys(plan.space for plan in plans):
        own = {plan.neuron: plan for plan in plans if plan.space == space}
        change = widen(space, {neuron: plan.coef for neuron, plan in own.items()}, spaces)
        delta = torch.zeros(len(change.src), next(iter(own.values())).moves.shape[1], dtype=torch.float64)
        seen: dict[int, int] = {}
        for slot, neuron in enumerate(change.src.tolist()):
            if neuron in own:
                copy = seen[neuron] = seen.get(neuron, -1) + 1
                delta[slot] = eps * own[neuron].moves[copy].double().cpu()
        changes[space] = replace(change, delta=delta)
    return changes


def fresh_neurons(
    network: nn.Module, spaces: Spaces, counts: Mapping[int, int], fan_out: float, generator: torch.Generator
) -> dict[int, Change]:
    """Return the changes that add brand-new neurons, `counts` per space, drawn like the ones there are.

    Their rows are normal with the root mean square of the layer's own weights, their columns with `fan_out`.
    """
    changes = {}
    for space, count in counts.items():
        found = spaces[space]
        weight, d = rows(network, spaces, space)
        bias = d > weight[0].numel()
        block, more = found.size // found.groups, count // found.groups
        source = [slot if slot < start + block else NEW for start in range(0, found.size, block)
                  for slot in range(start, start + block + more)]  # fmt: skip
        drawn = torch.randn(len(source), d, generator=generator, dtype=torch.float64) * float(
            weight.detach().square().mean().sqrt()
        )
        drawn[torch.tensor(source) >= 0] = 0.0
        if bias:
            drawn[:, -1] = 0.0
        changes[space] = replace(keep(source), delta=drawn, fan_out=fan_out)
    return changes


def rows(network: nn.Module, spaces: Spaces, space: int) -> tuple[Tensor, int]:
    """Return the weight whose rows are the neurons of a space, and how many parameters a neuron has, bias included."""
    name = spaces[space].writers[0]
    weight = network.get_parameter(f"{name}.weight")
    return weight, weight[0].numel() + (getattr(network.get_submodule(name), "bias", None) is not None)


@torch.no_grad()
def measured(
    network: nn.Module, spaces: Spaces, plans: Sequence[Planned], listed: Sequence[int], eps: float, inputs: Tensor,
    loss: Loss,
) -> list[float]:  # fmt: skip
    """Return the change of the mean loss that each split in `listed` (places in `plans`) makes alone on one batch.

    The network is read in the mode it is in, which should be evaluation.
    """
    before, found = float(loss(network(inputs))), []
    for place in listed:
        own = plans[place]
        partners = [plan for plan in plans if plan.space == own.space] if spaces[own.space].groups > 1 else [own]
        alone = [plan if plan is own else replace(plan, moves=0 * plan.moves) for plan in partners]
        grown, _ = widened(network, spaces, changes_of(spaces, alone, eps))
        found.append(float(loss(grown(inputs))) - before)
    return found
