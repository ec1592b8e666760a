"""torch-pruning's network at a share of the multiply-accumulates, for comparison."""

__all__ = ["torch_pruned"]

import copy
import warnings

import torch
from torch import Tensor, nn

from studio.nets.costs import macs

HALVINGS = 12


def torch_pruned(network: nn.Module, example: Tensor, share: float) -> nn.Module:
    """Return the network its magnitude pruner makes at the largest ratio of channels that fits the share of cost.

    Every layer loses the same share, as its default is; the last layer keeps its outputs. Raises `SystemExit` with
    what to install where torch-pruning is missing.
    """
    low, high = 0.0, 1.0
    budget = share * macs(network, example) * 1.005
    best = _at(network, example, 0.97)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = _at(network, example, middle)
        if macs(found, example) <= budget:
            best, high = found, middle
        else:
            low = middle
    return best


def _at(network: nn.Module, example: Tensor, ratio: float) -> nn.Module:
    try:
        import torch_pruning as tp
    except ImportError as error:
        raise SystemExit("this comparison needs torch-pruning: pip install torch-pruning") from error
    found = copy.deepcopy(network)
    last = [module for module in found.modules() if isinstance(module, nn.Linear)][-1:]
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            found, example, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
            ignored_layers=last,
        )  # fmt: skip
        pruner.step()
    return found.eval()
