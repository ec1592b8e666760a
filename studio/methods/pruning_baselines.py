"""What greedy imitation is compared with: channels ranked one by one, the lowest dropped, nothing re-weighted.

Magnitude: the norm of a channel's own weights (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv
1608.08710). Taylor: the squared change of the loss that dropping a channel makes to first order, (dL / dgate)^2,
averaged over batches (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, arXiv
1906.10771). Batch norm: the size of the channel's scale (Liu et al., "Network Slimming", ICCV 2017, arXiv 1708.06519),
without the penalty that the paper trains it with. Random: the floor.
"""

__all__ = ["BASELINES", "baseline_order", "scores"]

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from studio.nets.contributions import gated
from studio.nets.modes import evaluating
from studio.nets.spaces import Spaces

BASELINES = ("magnitude", "taylor", "batchnorm", "random")


def scores(
    network: nn.Module, spaces: Spaces, method: str, batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor], generator: torch.Generator,
) -> dict[int, Float[Tensor, " n"]]:  # fmt: skip
    """Return a score for every channel of every space that can be pruned; what scores low is dropped.

    Only `taylor` looks at the batches. Raises `ValueError` for an unknown method, and for `batchnorm` where a space has
    no batch norm.
    """
    if method not in BASELINES:
        raise ValueError(f"method must be one of {', '.join(BASELINES)}, got {method!r}")
    if method == "taylor":
        return _taylor(network, spaces, batches, loss)
    if method == "random":
        return {at: torch.rand(spaces[at].size, generator=generator, dtype=torch.float64) for at in spaces.growable}
    found = _norms if method == "magnitude" else _scales
    return {space: found(network, spaces, space) for space in spaces.growable}


def baseline_order(score: Float[Tensor, " channels"], members: Int[Tensor, "n g"]) -> Int[Tensor, " n"]:
    """Return the vertices of a space in the order in which they are kept; a vertex scores what its channels do."""
    return score[members].sum(dim=1).argsort(descending=True, stable=True)


def _norms(network: nn.Module, spaces: Spaces, space: int) -> Tensor:
    """Return the norms of the channels' rows in all layers that write them."""
    squares = torch.zeros(spaces[space].size, dtype=torch.float64)
    for axis in spaces.along(space, "writer"):
        if axis.tensor.endswith("weight"):
            weight = network.get_parameter(axis.tensor).detach().double().cpu()
            squares += weight.transpose(0, axis.axis).flatten(1).square().sum(dim=1)
    return squares.sqrt()


def _scales(network: nn.Module, spaces: Spaces, space: int) -> Tensor:
    """Return the sizes of the channels' scales, summed over the batch norms they go through."""
    found = torch.zeros(spaces[space].size, dtype=torch.float64)
    norms = [
        axis for axis in spaces.along(space, "rider")
        if axis.tensor.endswith("weight") and isinstance(network.get_submodule(axis.module), _BatchNorm)
        and len(axis.layout) == 1
    ]  # fmt: skip
    if not norms:
        raise ValueError(f"method 'batchnorm' needs a batch norm, and {spaces[space].name} has none: choose another")
    for axis in norms:
        found += network.get_parameter(axis.tensor).detach().double().cpu().abs().view(len(found), -1).mean(dim=1)
    return found


def _taylor(
    network: nn.Module, spaces: Spaces, batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[int, Tensor]:  # fmt: skip
    device = next(network.parameters()).device
    places = spaces.growable
    totals = [torch.zeros(spaces[space].size, dtype=torch.float64) for space in places]
    with evaluating(network), torch.enable_grad():
        for inputs, targets in batches:
            gates = [torch.ones(spaces[at].size, device=device, requires_grad=True) for at in places]
            with gated(network, spaces, dict(zip(places, gates, strict=True))):
                value = loss(network(inputs), targets)
            for total, slope in zip(totals, torch.autograd.grad(value, gates), strict=True):
                total += slope.double().square().cpu()
    return dict(zip(places, totals, strict=True))
