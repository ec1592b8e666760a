"""From weights of a selection to a smaller network: gates, the change of a space, and what it costs."""

__all__ = ["cut", "gates_of", "shrunk"]

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.nets.spaces import Spaces
from studio.nets.surgery import Change, Edit, widened


def gates_of(members: Int[Tensor, "n g"], weights: Float[np.ndarray, " n"]) -> Float[Tensor, " channels"]:
    """Return what each channel is multiplied by: n times the weight of its vertex (without the n networks collapse)."""
    gates = torch.zeros(members.numel(), dtype=torch.float64)
    gates[members.flatten()] = torch.as_tensor(len(weights) * weights).repeat_interleave(members.shape[1])
    return gates


def cut(gates: Float[Tensor, " channels"]) -> Change:
    """Return the change of a space that drops channels of gate 0 and multiplies what reads the others by theirs."""
    kept = gates.nonzero().flatten()
    return Change(kept, gates[kept].double())


def shrunk(
    network: nn.Module, spaces: Spaces, gates: Mapping[int, Float[Tensor, " channels"]]
) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return the physically smaller network that computes what the gated one does, and the edits that made it.

    Kept channels are copied with their batch norms and depthwise filters; the gates are folded into the columns of the
    layers that read them. Raises `ValueError`, naming the space, where one cannot be pruned or would be empty.
    """
    return widened(network, spaces, {space: cut(own) for space, own in gates.items()})
