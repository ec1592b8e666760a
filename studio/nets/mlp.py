"""Many small networks as one: n multi-layer perceptrons of one shape, each a row of one matrix of parameters."""

__all__ = ["mlp_outputs", "mlp_parameters", "mlp_start"]

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor


def mlp_parameters(sizes: Sequence[int]) -> int:
    """Return how many parameters one network of these layer sizes has (weights and biases)."""
    return sum((wide + 1) * out for wide, out in pairwise(sizes))


def mlp_start(n: int, sizes: Sequence[int], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Return n networks' parameters: weights normal with variance 2 / inputs, biases 0 (He et al., 2015).

    A row holds, layer after layer, the weights (inputs x outputs) and then the biases.
    """
    parts = []
    for wide, out in pairwise(sizes):
        parts.append(torch.randn(n, wide * out, generator=generator) * (2 / wide) ** 0.5)
        parts.append(torch.zeros(n, out))
    return torch.cat(parts, dim=1)


def mlp_outputs(
    parameters: Float[Tensor, "n d"], inputs: Float[Tensor, "b f"], sizes: Sequence[int]
) -> Float[Tensor, "n b k"]:
    """Return every network's outputs on the same inputs: linear layers with ReLU between them.

    One batched product a layer, so that n small networks take hardly more calls than one.
    """
    hidden, at = inputs.expand(len(parameters), *inputs.shape), 0
    for layer, (wide, out) in enumerate(pairwise(sizes)):
        weights = parameters[:, at : at + wide * out].unflatten(1, (wide, out))
        at += wide * out
        biases = parameters[:, None, at : at + out]
        at += out
        hidden = torch.baddbmm(biases, hidden, weights)
        hidden = hidden.relu() if layer < len(sizes) - 2 else hidden
    return hidden
