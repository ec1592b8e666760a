"""The layers that read a pruned space, with all their weights solved anew: least squares towards what they gave before.

    min over D of |R - X D|^2 + t |D|^2,       R = what the outputs lack, X = what the layer is given

Greedy imitation multiplies each kept channel by one number, as the paper has it. Where channels are few and different
from each other, that cannot say what all of them said; every weight of the reader can be fitted to it instead, from the
same examples and without labels, as He, Zhang and Sun do after their own selection ("Channel Pruning", ICCV 2017, arXiv
1707.06168). Optional, and an addition to the paper.
"""

__all__ = ["refit"]

import torch
from torch import Tensor, nn

from studio.nets.contributions import Wanted, sampled
from studio.nets.prefix import Prefix
from studio.nets.spaces import Spaces

RIDGE = 1e-3  # of the mean square of an input


@torch.no_grad()
def refit(
    network: nn.Module, spaces: Spaces, space: int, prefix: Prefix, positions: int, generator: torch.Generator,
    wanted: Wanted,
) -> None:  # fmt: skip
    """Change the weights and biases of the layers that read a space, in place, towards the wanted outputs.

    `network` is ours to change and has the sizes that `spaces` says. Transposed convolutions stay as they are.
    """
    squares: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    for name, given, lack in sampled(network, spaces, space, prefix, positions, generator, wanted):
        module = network.get_submodule(name)
        groups = int(getattr(module, "groups", 1))
        x = given.view(len(given), groups, -1).transpose(0, 1)
        if module.bias is not None:
            x = torch.cat([x, x.new_ones(groups, len(given), 1)], dim=2)
        own = x.transpose(1, 2) @ x
        with_lack = x.transpose(1, 2) @ lack.view(len(lack), groups, -1).transpose(0, 1)
        squares[name] = squares.get(name, 0) + own
        products[name] = products.get(name, 0) + with_lack
    for name, own in squares.items():
        module = network.get_submodule(name)
        weight: Tensor = module.weight  # type: ignore[assignment]
        size = own.shape[1]
        lift = RIDGE * own.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        lifted = own + lift[:, None, None] * torch.eye(size, dtype=own.dtype, device=own.device)
        change = torch.linalg.solve(lifted, products[name]).transpose(1, 2).flatten(0, 1)
        inner = weight[0].numel()
        weight += change[:, :inner].view_as(weight).to(weight)
        if module.bias is not None:
            module.bias += change[:, inner].to(weight)  # type: ignore[operator]
