"""Signed splitting (S3D): copies with negative weights too, which move on where all splitting matrices are positive.

Wu, Ye, Lei, Lee and Liu, "Steepest Descent Neural Architecture Optimization: Escaping Local Optimum with Signed Neural
Splitting", 2020, arXiv 2003.10392.

    replace sigma(theta) by sum_k w_k sigma(theta + eps d_k),   sum w_k = 1,  sum |w_k| <= c,  sum w_k d_k = 0
    2 copies   the better of (1/2, 1/2) along the lowest eigenvector and of a small negative copy along the highest
    3 copies   the triplets, and the mixed one, which uses both ends of the spectrum at once
    4 copies   the quartet: the optimum over any number of copies

What each gains is in `split_schemes`. A neuron is taken once, with two, three or four copies: a knapsack in which every
item offers several options. Opposite copies may drift to infinity together; the sum of |shares| of each family of
neurons is shown, c stays small, and weight decay holds them.
"""

__all__ = ["signed_split", "signed_splitting"]

from collections.abc import Sequence

import torch
from torch import Tensor

from studio.methods.growth import Item, Planned, Scored, items, places
from studio.methods.knapsack import multiple_choice
from studio.methods.split_schemes import SCHEMES, best_gains, scheme, scheme_gains

ROUNDING = 1e-6


def signed_splitting(
    every: Sequence[Scored], budget: float, caps: Sequence[int], c: float = 3.0, copies: int = 4
) -> list[Planned]:
    """Return the signed splits to make: at most `budget` spent, at most `caps[k]` new neurons in space k of `every`.

    `c` bounds the sum of absolute weights, `copies` (2 to 4) how many a neuron may become. With c = 1 this is S2D.
    """
    most = range(2, copies + 1)
    best = {each.space: [best_gains(*_ends(each), c, number) for number in most] for each in every}
    found, _, costs = items(every, [best[each.space][-1][0] for each in every])
    gains = torch.stack([torch.stack([_total(best[item.scored.space][k][0], item) for item in found]) for k in
                         range(len(most))], dim=1)  # fmt: skip
    taken = multiple_choice(gains, costs[:, None] * torch.arange(1, copies), budget, *places(every, caps)).tolist()
    plans = []
    for item, option in zip(found, taken, strict=True):
        if option >= 0:
            index = best[item.scored.space][option][1]
            plans += [_planned(item, neuron, SCHEMES[int(index[neuron])], c, option + 2) for neuron in item.neurons]
    return plans


def signed_split(each: Scored, neuron: int, name: str, c: float) -> Planned:
    """Return the split of one neuron by the scheme called `name` (one of `SCHEMES`), whatever it gains."""
    return _planned(Item(each, (neuron,)), neuron, name, c, len(scheme(name, c).weights))


def _ends(each: Scored) -> tuple[Tensor, Tensor]:
    """Return both ends of the spectra, with what is 0 but for rounding set to 0."""
    low, high = each.spectrum.low, each.spectrum.high
    floor = ROUNDING * torch.maximum(low.abs().max(), high.abs().max())
    return torch.where(low.abs() < floor, 0.0, low), torch.where(high.abs() < floor, 0.0, high)


def _total(gain: Tensor, item: Item) -> Tensor:
    return gain[list(item.neurons)].sum().cpu().double()


def _planned(item: Item, neuron: int, name: str, c: float, copies: int) -> Planned:
    """Return a split with so many copies; where the scheme has fewer, its last copy is shared among twins."""
    spectrum, way = item.scored.spectrum, scheme(name, c)
    p, q = spectrum.low_vectors[neuron], spectrum.high_vectors[neuron]
    moves = [a * p + b * q for a, b in zip(way.along_low, way.along_high, strict=True)]
    twins = copies - len(moves) + 1
    weights = (*way.weights[:-1], *[way.weights[-1] / twins] * twins)
    bent = torch.stack([spectrum.low[neuron], spectrum.high[neuron]])[None]
    gain = float(scheme_gains(bent[:, 0], bent[:, 1], c)[0, SCHEMES.index(name)])
    return Planned(item.scored.space, neuron, name, weights, torch.stack(moves + moves[-1:] * (twins - 1)), gain)
