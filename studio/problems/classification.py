"""Classification by a population of small networks: what they learn from, and everything they are then asked."""

__all__ = ["TEST_NOISE", "Classification", "classification", "with_wrong_labels"]

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.core.seeds import generator_from
from studio.nets.mlp import mlp_outputs, mlp_parameters, mlp_start
from studio.problems.digits import Labelled

TEST_NOISE = 0.3


@dataclass(frozen=True, eq=False)
class Classification:
    """A training set with some wrong labels, its test set three ways, and the shape of the networks that learn it.

    `noisy` are the test inputs under Gaussian noise of standard deviation `TEST_NOISE`; `foreign` are inputs that
    belong to no class, `foreign_kind` says in words what they are.
    """

    inputs: Float[Tensor, "m f"]
    labels: Int[Tensor, " m"]
    test_inputs: Float[Tensor, "t f"]
    test_labels: Int[Tensor, " t"]
    noisy: Float[Tensor, "t f"]
    foreign: Float[Tensor, "u f"]
    foreign_kind: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    hidden: tuple[int, ...]
    batch_size: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the layer sizes of a network: inputs, hidden layers, classes."""
        return (self.inputs.shape[1], *self.hidden, len(self.classes))

    @property
    def parameters(self) -> int:
        """Return how many parameters a network has."""
        return mlp_parameters(self.sizes)

    def start(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Return n freshly drawn networks."""
        return mlp_start(n, self.sizes, generator)

    def batch(self, generator: torch.Generator) -> tuple[Float[Tensor, "b f"], Int[Tensor, " b"]]:
        """Return a random batch without repeats (the whole set where it is no larger), the same for all members."""
        if self.batch_size >= len(self.inputs):
            return self.inputs, self.labels
        rows = torch.randperm(len(self.inputs), generator=generator)[: self.batch_size]
        return self.inputs[rows], self.labels[rows]

    def outputs(self, parameters: Float[Tensor, "n d"], inputs: Float[Tensor, "b f"]) -> Float[Tensor, "n b k"]:
        """Return every network's logits on the same inputs, differentiable in the parameters."""
        return mlp_outputs(parameters, inputs, self.sizes)


def classification(
    data: Labelled, seed: int, count: int, wrong: float, hidden: tuple[int, ...], batch_size: int
) -> Classification:
    """Return the problem a seed draws from a data set: `count` training examples, a share `wrong` mislabelled.

    Where the set has no test part of its own, what is not drawn for training is the test set.
    """
    order = torch.randperm(len(data.inputs), generator=generator_from(seed, "split"))
    rows, rest = order[:count], order[count:]
    inputs, labels = data.inputs[rows], data.labels[rows]
    if data.test_inputs is None or data.test_labels is None:
        test_inputs, test_labels = data.inputs[rest], data.labels[rest]
    else:
        test_inputs, test_labels = data.test_inputs, data.test_labels
    if not len(test_inputs) or count > len(data.inputs):
        raise ValueError(f"training must leave examples to test on: there are {len(data.inputs):,}, got {count:,}")
    noise = torch.randn(test_inputs.shape, generator=generator_from(seed, "noise"))
    return Classification(
        inputs=inputs,
        labels=with_wrong_labels(labels, len(data.classes), wrong, generator_from(seed, "wrong labels")),
        test_inputs=test_inputs, test_labels=test_labels, noisy=test_inputs + TEST_NOISE * noise,
        foreign=data.foreign(test_inputs, inputs, generator_from(seed, "foreign")), foreign_kind=data.foreign_kind,
        classes=data.classes, shape=data.shape, hidden=hidden, batch_size=batch_size,
    )  # fmt: skip


def with_wrong_labels(
    labels: Int[Tensor, " m"], classes: int, share: float, generator: torch.Generator
) -> Int[Tensor, " m"]:
    """Return the labels with a share of them (rounded) changed to another class, each other one as likely."""
    changed = labels.clone()
    rows = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    turns = torch.randint(1, classes, (len(rows),), generator=generator)
    changed[rows] = (labels[rows] + turns) % classes
    return changed
