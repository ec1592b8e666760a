"""The two shapes of a problem: a loss over points, or a loss over a network and a batch."""

__all__ = ["NetworkProblem", "PointProblem"]

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class PointProblem(Protocol):
    """A loss over points of a space: n points are scored at once."""

    def start(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Return n starting points."""
        ...

    def loss(self, points: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return the loss of each point, differentiable in the points."""
        ...


@runtime_checkable
class NetworkProblem(Protocol):
    """A loss over a network on batches of data."""

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without end."""
        ...

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """Return the mean loss of the network on a batch."""
        ...
