"""Splitting matrices without a graph: a network is doubled in place, and its loss differentiated twice.

Wu, Wang and Liu, arXiv 1910.02366. Let every neuron of a space become two halves, displaced by +v_i and -v_i. By the
splitting lemma the loss of that network is

    L(v) = L(0) + 1/2 sum_i v_i . S_i v_i + O(|v|^4),

without cross terms, so that its Hessian at v = 0 is block diagonal with the splitting matrices. This needs nothing but
surgery and autograd: networks with branches that depend on the data, whose channel spaces were declared by hand, have
splitting matrices too. It costs a few passes of a network whose space is twice as wide, where `curvature` costs the
layer's own path; both agree (see the tests).
"""

__all__ = ["doubled_product"]

from collections.abc import Callable

import torch
from torch import Tensor, nn

from studio.nets.spaces import Spaces
from studio.nets.surgery import widen, widened


def doubled_product(
    network: nn.Module, spaces: Spaces, space: int, inputs: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Callable[[Tensor], Tensor], tuple[int, int]]:
    """Return the product with the splitting matrices of a space's neurons, and their size (neurons, parameters of one).

    The network must be in evaluation mode.
    """
    size, name = spaces[space].size, spaces[space].writers[0]
    change = widen(space, dict.fromkeys(range(size), (0.5, 0.5)), spaces)
    twice, _ = widened(network, spaces, {space: change})
    sign = torch.tensor([-1.0 if row in change.src[:slot] else 1.0 for slot, row in enumerate(change.src)])
    writer = {key: part.detach() for key, part in twice.get_submodule(name).named_parameters()}
    weight = writer["weight"]
    width = weight[0].numel()
    with torch.enable_grad():
        v = torch.zeros(size, width + ("bias" in writer), dtype=weight.dtype, device=weight.device, requires_grad=True)
        moved = sign.to(weight)[:, None] * v[change.src.to(weight.device)]
        changed = {f"{name}.weight": weight + moved[:, :width].reshape(weight.shape)}
        if "bias" in writer:
            changed[f"{name}.bias"] = writer["bias"] + moved[:, width]
        value = loss(torch.func.functional_call(twice, changed, (inputs,)))
        (slope,) = torch.autograd.grad(value, v, create_graph=True)

    def product(along: Tensor) -> Tensor:
        (turned,) = torch.autograd.grad(slope, v, along, retain_graph=True, materialize_grads=True)
        return turned

    return product, (size, v.shape[1])
