"""Diversity energies: how crowded a population is, to be minimised; and honest measures of how spread it ended up.

u_i are the features of n members. The Riesz energy with s = 0, 1, 2 pushes near members apart hardest and so spreads
them evenly; the variance only looks at the mean distance and piles members up at the extremes (kept as the foil it is).
"""

__all__ = [
    "ENERGIES",
    "clipped",
    "distinct",
    "energy",
    "log_determinant",
    "mean_distance",
    "nearest_distances",
    "nearest_gap",
    "riesz",
    "variance",
]

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-4
TINY = 1e-30


def riesz(features: Float[Tensor, "n d"], s: int = 1, epsilon: float = EPSILON) -> Float[Tensor, ""]:
    """Return the mean over pairs of |u_i - u_j|^-s; for s = 0 its limit, the mean of -log |u_i - u_j|.

    Squared distances are softened by `epsilon` times their own mean, so that coinciding members stay finite.
    """
    squares = _pairs(features)
    squares = squares + epsilon * squares.detach().mean() + torch.finfo(squares.dtype).tiny
    return (-0.5 * squares.log()).mean() if s == 0 else squares.pow(-0.5 * s).mean()


def log_determinant(features: Float[Tensor, "n d"], epsilon: float = EPSILON) -> Float[Tensor, ""]:
    """Return -log det(K + eps I) / n for the Gaussian kernel K at the median distance (a determinantal process)."""
    squares = torch.cdist(features, features).square()
    scale = _pairs(features).detach().median().clamp(min=torch.finfo(squares.dtype).tiny)
    kernel = torch.exp(-squares / scale)
    kernel = kernel + epsilon * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    return -torch.linalg.slogdet(kernel).logabsdet / len(features)


def variance(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return minus the mean squared distance over pairs."""
    return -_pairs(features).mean()


def mean_distance(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return minus the mean distance over pairs."""
    squares = _pairs(features)
    return -(squares + EPSILON * squares.detach().mean() + torch.finfo(squares.dtype).tiny).sqrt().mean()


ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "riesz0": partial(riesz, s=0),
    "riesz1": partial(riesz, s=1),
    "riesz2": partial(riesz, s=2),
    "determinant": log_determinant,
    "variance": variance,
    "distance": mean_distance,
}


def energy(name: str) -> Callable[[Tensor], Tensor]:
    """Return the energy called `name`; an unknown name is a `ValueError` that lists the known ones."""
    if name not in ENERGIES:
        raise ValueError(f"energy must be one of {', '.join(ENERGIES)}, got {name!r}")
    return ENERGIES[name]


def clipped(pushes: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return an energy's slopes, each member's no longer than the median one: the closest pair must not rule."""
    length = pushes.norm(dim=1, keepdim=True)
    return pushes * (length.median() / (length + TINY)).clamp(max=1.0)


def nearest_distances(features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return each member's distance to the nearest other one; 0 for a single member."""
    if len(features) < 2:
        return features.new_zeros(len(features))
    gaps = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return gaps.fill_diagonal_(float("inf")).amin(dim=1)


def nearest_gap(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the mean over members of the distance to the nearest other one; 0 for a single member."""
    return nearest_distances(features).mean()


def distinct(points: Float[Tensor, "n d"], modes: Float[Tensor, "m d"], radius: float) -> int:
    """Return how many of the known modes have a point within `radius`."""
    return int((torch.cdist(modes, points).amin(dim=1) <= radius).sum())


def _pairs(features: Float[Tensor, "n d"]) -> Float[Tensor, " p"]:
    """Return the squared distances of all pairs i < j."""
    i, j = torch.triu_indices(len(features), len(features), offset=1, device=features.device)
    return (features[i] - features[j]).square().sum(dim=1)
