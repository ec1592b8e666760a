"""What growing is compared with: random splits, copies with a little noise (Net2Net), and brand-new random neurons.

Net2Net: Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016, arXiv
1511.05641: a neuron is copied as it is and noise tells the copies apart. A random split goes eps along a random unit
direction and back, of a random neuron: what splitting steepest descent does without looking. A new neuron is drawn like
those there are and is read with small random weights. All choose neurons at random, without repeats, until nothing more
fits the budget.
"""

__all__ = ["net2net", "new_neurons", "random_choice", "random_splits"]

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from studio.methods.growth import Planned, rows
from studio.nets.spaces import Spaces


def random_choice(
    spaces: Spaces, costs: Mapping[int, float], budget: float, caps: Mapping[int, int], generator: torch.Generator
) -> list[tuple[int, tuple[int, ...]]]:
    """Return neurons drawn at random, as (space, one neuron of each group), that fit the budget and the caps."""
    pool: list[tuple[int, tuple[int, ...]]] = []
    for space in costs:
        size, groups = spaces[space].size, spaces[space].groups
        block = size // groups
        orders = [torch.randperm(block, generator=generator) + block * group for group in range(groups)]
        pool += [(space, tuple(column)) for column in torch.stack(orders, dim=1).tolist()]
    room, left, taken = budget * (1 + 1e-12), dict(caps), []
    for place in torch.randperm(len(pool), generator=generator).tolist():
        space, neurons = pool[place]
        price = costs[space] * len(neurons)
        if price <= room and len(neurons) <= left[space]:
            room, left[space] = room - price, left[space] - len(neurons)
            taken.append((space, neurons))
    return taken


def random_splits(
    network: nn.Module, spaces: Spaces, choice: Sequence[tuple[int, tuple[int, ...]]], generator: torch.Generator
) -> list[Planned]:
    """Return equal splits of the chosen neurons along random unit directions."""
    plans = []
    for space, neurons in choice:
        for neuron in neurons:
            way = _direction(network, spaces, space, generator)
            plans.append(Planned(space, neuron, "random", (0.5, 0.5), torch.stack([way, -way]), 0.0))
    return plans


def net2net(
    network: nn.Module, spaces: Spaces, choice: Sequence[tuple[int, tuple[int, ...]]], noise: float, eps: float,
    generator: torch.Generator,
) -> list[Planned]:  # fmt: skip
    """Return copies of the chosen neurons; the second copy's rows get noise of standard deviation `noise`.

    The noise is relative to the layer's own weights. It is divided by `eps`, by which every split is multiplied.
    """
    plans = []
    for space, neurons in choice:
        weight, d = rows(network, spaces, space)
        spread = noise * float(weight.detach().square().mean().sqrt()) / eps
        for neuron in neurons:
            drawn = spread * torch.randn(d, generator=generator, dtype=torch.float64)
            moves = torch.stack([torch.zeros_like(drawn), drawn])
            plans.append(Planned(space, neuron, "copy", (0.5, 0.5), moves, 0.0))
    return plans


def new_neurons(choice: Sequence[tuple[int, tuple[int, ...]]]) -> dict[int, int]:
    """Return how many brand-new neurons each space gets: as many as were chosen there."""
    counts: dict[int, int] = {}
    for space, neurons in choice:
        counts[space] = counts.get(space, 0) + len(neurons)
    return counts


def _direction(network: nn.Module, spaces: Spaces, space: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(rows(network, spaces, space)[1], generator=generator, dtype=torch.float64)
    return drawn / drawn.norm()
