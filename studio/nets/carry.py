"""An optimiser carried through surgery: what it had learnt about a neuron goes with the neuron's copies.

A copy with reader coefficient c has c times its parent's gradient in its rows and the same gradient in its column.
First moments follow that, second moments its square. Brand-new entries begin with first moment 0 and the mean of the
second moments: with 0 there, and the tensor's large step count, their first Adam step would be
(1 - b1) / sqrt(1 - b2) = 3.2 learning rates long instead of at most one.
"""

__all__ = ["carried", "carry"]

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from studio.nets.surgery import Edit, edited

SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")


def carried(state: Tensor, edits: Sequence[Edit], squared: bool) -> Tensor:
    """Return an optimiser's moment of one tensor after the edits made to that tensor, in their order."""
    for edit in edits:
        factors = [factor**2 for factor in edit.moments] if squared else edit.moments
        state = edited(state, edit, factors, state.mean() if squared and state.numel() else 0.0)
    return state


def carry(optimizer: torch.optim.Optimizer, before: nn.Module, after: nn.Module, edits: Sequence[Edit]) -> None:
    """Make an optimiser of the network `before` one of the network `after`, which the edits made from it.

    Changed in place, because learning-rate schedules hold on to it. Parameters of `after` that `before` had not (an
    inserted layer) join the first group without state; the optimiser must be over parameters of `before` only. Raises
    `ValueError` otherwise.
    """
    names = {id(parameter): name for name, parameter in before.named_parameters()}
    fresh = dict(after.named_parameters())
    by_tensor: dict[str, list[Edit]] = {}
    for edit in edits:
        by_tensor.setdefault(edit.tensor, []).append(edit)
    for group in optimizer.param_groups:
        for place, old in enumerate(group["params"]):
            name = names.get(id(old))
            if name is None or name not in fresh:
                raise ValueError("the optimiser holds a parameter that is not the network's: make one for it alone")
            group["params"][place] = new = fresh.pop(name)
            state = optimizer.state.pop(old, None)
            if state:
                own = by_tensor.get(name, [])
                optimizer.state[new] = {
                    key: carried(value, own, key in SQUARES)
                    if isinstance(value, Tensor) and value.shape == old.shape and value.dim()
                    else value
                    for key, value in state.items()
                }
    optimizer.param_groups[0]["params"] += [
        parameter for name, parameter in fresh.items() if parameter.requires_grad and name not in names.values()
    ]
