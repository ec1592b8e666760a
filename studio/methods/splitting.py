"""Splitting steepest descent (S2D): train until it stalls, then split the neurons whose splitting matrix is indefinite.

Wu, Wang and Liu, "Splitting Steepest Descent for Growing Neural Architectures", NeurIPS 2019, arXiv 1910.02366.

    1.  train the parameters until they hardly improve
    2.  for every neuron:   S = E[g d^2 sigma / d theta^2],   lambda, v = its smallest eigenvalue and eigenvector
    3.  choose the neurons with the smallest lambda, all below 0, until the share of new neurons is reached
    4.  replace each by sigma(theta + eps v) / 2 + sigma(theta - eps v) / 2;   the loss falls by eps^2 |lambda| / 2
    5.  go on with 1

Differences from the public code: a neuron with lambda >= 0 is never split (it splits a fixed share, whatever the sign);
S is that of the whole way to the reader (see `curvature`); the decrease is predicted again on other examples than those
that chose. Batch norm is in evaluation mode while S is taken.
"""

__all__ = ["binary", "splitting"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from studio.methods.growth import Item, Planned, Scored, items, places
from studio.methods.knapsack import chosen


def splitting(every: Sequence[Scored], budget: float, caps: Sequence[int]) -> list[Planned]:
    """Return the splits with the most negative indices: at most `budget` new neurons, `caps[k]` in space k of `every`.

    Each splits a neuron in two equal copies along its lowest eigenvector, the best of all splits with positive weights
    (the paper's Theorem on optimal splitting).
    """
    found, gains, costs = items(every, [unstable(each.spectrum.low) / 2 for each in every])
    taken = chosen(gains, costs, budget, *places(every, caps))
    return [plan for place in taken.nonzero().flatten().tolist() for plan in binary(found[place])]


def unstable(low: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the splitting indices below 0, and 0 for neurons that are stable.

    What is below 0 by rounding only (a millionth of the layer's largest index) counts as stable.
    """
    floor = -1e-6 * low.abs().max()
    return torch.where(low < floor, low, torch.zeros_like(low))


def binary(item: Item) -> list[Planned]:
    """Return the splits of an item's neurons into two equal copies along their lowest eigenvectors."""
    spectrum = item.scored.spectrum
    return [
        Planned(
            item.scored.space, neuron, "binary+", (0.5, 0.5),
            torch.stack([spectrum.low_vectors[neuron], -spectrum.low_vectors[neuron]]),
            0.5 * float(spectrum.low[neuron]),
        )
        for neuron in item.neurons
    ]  # fmt: skip
