"""Losses over the plane whose sets of optima are known: a ring, a curve, four isolated minima, a rugged bowl."""

__all__ = ["PLANES", "Plane", "plane"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Plane:
    """A loss over the plane: a point problem with its window and its known optimum set.

    `optimum` holds points of the set argmin f (one row each); the minimum of every plane is 0.
    `cluster` is the centre of the tight start, chosen away from the set; `rate` is a descent step that suits the loss.
    """

    name: str
    height: Callable[[Tensor, Tensor], Tensor]
    window: float
    cluster: tuple[float, float]
    optimum: Float[Tensor, "m 2"]
    rate: float

    def start(self, n: int, generator: torch.Generator, spread: float = 0.15) -> Float[Tensor, "n 2"]:
        """Return n points from a normal of standard deviation `spread` times half the window, about `cluster`."""
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return torch.tensor(self.cluster, dtype=torch.float64) + spread * self.window * noise

    def loss(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Return the loss of each point."""
        return self.height(points[:, 0], points[:, 1])

    def features(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Return what diversity is measured in: here the points themselves."""
        return points


def plane(name: str) -> Plane:
    """Return the plane called `name`; an unknown name is a `ValueError` that lists the known ones."""
    if name not in PLANES:
        raise ValueError(f"plane must be one of {', '.join(PLANES)}, got {name!r}")
    return PLANES[name]


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square() - 1).square()


def _curve(x: Tensor, y: Tensor) -> Tensor:
    outside = (x.abs() - 1.2).clamp(min=0)
    return (y - 0.6 * torch.sin(3 * x)).square() + outside.square()


def _himmelblau(x: Tensor, y: Tensor) -> Tensor:
    return ((x.square() + y - 11).square() + (x + y.square() - 7).square()) / 100


def _rugged(x: Tensor, y: Tensor) -> Tensor:
    ripple = (1 - torch.cos(2 * math.pi * x)) + (1 - torch.cos(2 * math.pi * y))
    return 0.1 * (x.square() + y.square()) + 0.4 * ripple


def _circle(m: int = 240) -> Tensor:
    angle = torch.linspace(0, 2 * math.pi, m, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def _wave(m: int = 240) -> Tensor:
    x = torch.linspace(-1.2, 1.2, m, dtype=torch.float64)
    return torch.stack([x, 0.6 * torch.sin(3 * x)], dim=1)


_HIMMELBLAU_MINIMA = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.283185991286170),
    (3.584428340330492, -1.848126526964404),
)

PLANES = {
    "ring": Plane("ring", _ring, 1.8, (1.3, 0.6), _circle(), 0.02),
    "curve": Plane("curve", _curve, 1.8, (-0.9, 0.9), _wave(), 0.05),
    "himmelblau": Plane(
        "himmelblau", _himmelblau, 5.5, (0.0, 0.0), torch.tensor(_HIMMELBLAU_MINIMA, dtype=torch.float64), 0.5
    ),
    "rugged": Plane("rugged", _rugged, 3.5, (1.6, 1.9), torch.zeros(1, 2, dtype=torch.float64), 0.05),
}
