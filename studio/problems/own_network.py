"""A network and data of one's own, as a problem that can grow: any module that can be traced, any loss."""

__all__ = ["OwnNetwork"]

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from studio.core.seeds import generator_from
from studio.nets.modes import evaluating
from studio.nets.spaces import Spaces, trace
from studio.nets.surgery import resized

PROBE = 512
CHUNK = 500
ENTRIES = 2**23  # numbers of input that one pass takes at most: 55 pictures of 224 x 224


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """A seed network with its training and test data; it is copied, never changed.

    `inputs` and `targets` lie on the network's device. `criterion(outputs, targets)` is the mean loss of a batch, and
    `right(outputs, targets)` marks each test example with a number between 0 (wrong) and 1 (right); the defaults are
    those of classification. `seed` draws the order of the batches. `declare` returns the channel spaces of a network
    that tracing cannot follow, of whatever widths it is by then (see `studio.nets.spaces.declared`). `words` say what
    the mean of `right` is a share of.
    """

    seed_network: nn.Module
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy
    right: Callable[[Tensor, Tensor], Tensor] = lambda outputs, targets: (outputs.argmax(dim=1) == targets).double()
    batch_size: int = 128
    seed: int = 0
    declare: Callable[[nn.Module], Spaces] | None = None
    words: str = "of the test set right"

    @property
    def example(self) -> Tensor:
        """Return two inputs, enough to trace a network."""
        return self.inputs[:2]

    @property
    def test_words(self) -> str:
        """Return what `accuracy` is a share of, in words."""
        return self.words

    def network(self, widths: Sequence[int] | None, generator: torch.Generator) -> nn.Module:
        """Return a copy of the seed network, or one of other widths (its weights are then only of the right shape).

        Raises `ValueError` where the network cannot be traced or the widths are not as many as it has.
        """
        network = copy.deepcopy(self.seed_network)
        return network if widths is None else resized(network, self.spaces(network), widths)

    def spaces(self, network: nn.Module) -> Spaces:
        """Return the channel spaces of such a network, traced or declared."""
        return trace(network, self.example) if self.declare is None else self.declare(network)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return training batch number `step`: shuffled epochs in batches whose sizes differ by one at most."""
        count = -(-len(self.inputs) // self.batch_size)
        epoch, part = divmod(step, count)
        order = torch.randperm(len(self.inputs), generator=generator_from(self.seed, "epoch", epoch))
        return self._rows(order.tensor_split(count)[part])

    def probe(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the training examples of probe number `index`: neighbouring ones share none."""
        size = min(PROBE, len(self.inputs) // 2, self._most())
        order = torch.randperm(len(self.inputs), generator=generator_from(self.seed, "probe"))
        return self._rows(order[(index * size + torch.arange(size)) % len(self.inputs)])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return self.criterion(outputs, targets)

    def accuracy(self, network: nn.Module) -> float:
        """Return the mean of `right` over the test set, in evaluation mode; every module's mode is put back."""
        with evaluating(network), torch.no_grad():
            size = min(CHUNK, self._most())
            parts = zip(self.test_inputs.split(size), self.test_targets.split(size), strict=True)
            total = sum(float(self.right(network(inputs), targets).sum()) for inputs, targets in parts)
        return total / len(self.test_targets)

    def _most(self) -> int:
        """Return how many examples one pass takes."""
        return max(1, ENTRIES // max(1, self.inputs[0].numel()))

    def _rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows.to(self.inputs.device)
        return self.inputs[rows], self.targets[rows]
