"""The two shapes of a problem: a loss over points, or a loss over a network that may change its size."""

__all__ = ["GrowthProblem", "PointProblem"]

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

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
class GrowthProblem(Protocol):
    """Networks of any widths, examples to train and to score them on, and a test."""

    @property
    def example(self) -> Tensor:
        """Two inputs, to trace a network with."""
        ...

    @property
    def test_words(self) -> str:
        """What `accuracy` is a share of, in words."""
        ...

    def network(self, widths: Sequence[int] | None, generator: torch.Generator) -> nn.Module:
        """Return a freshly drawn network of these widths, or the small one to begin with."""
        ...

    def spaces(self, network: nn.Module) -> Any:
        """Return the channel spaces of such a network (`studio.nets.spaces.Spaces`)."""
        ...

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return training batch number `step`."""
        ...

    def probe(self, index: int) -> tuple[Tensor, Tensor]:
        """Return examples to score neurons on; neighbouring numbers share none, where there are enough."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        ...

    def accuracy(self, network: nn.Module) -> float:
        """Return how good a network is on examples never trained on: higher is better, 1 is perfect."""
        ...
