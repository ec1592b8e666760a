"""torch-pruning's networks at a share of the multiply-accumulates, for comparison."""

__all__ = ["at_ratio", "ratio_for", "torch_pruned"]

import copy
import importlib
from typing import Any

from torch import Tensor, enable_grad, nn

from studio.nets.costs import macs

HALVINGS = 8


def torch_pruned(network: nn.Module, example: Tensor, share: float) -> nn.Module:
    """Return what its magnitude pruner makes of a network, as near as can be to a share of the multiply-accumulates."""
    return at_ratio(network, example, ratio_for(network, example, round(share * macs(network, example))))


def at_ratio(network: nn.Module, example: Tensor, ratio: float) -> nn.Module:
    """Return the network pruned by torch-pruning: groups of its graph, lowest mean magnitudes first, the head kept."""
    peer, theirs = _peer(), copy.deepcopy(network)
    head = next(module for module in reversed(list(theirs.modules())) if isinstance(module, nn.Linear))
    sizes = peer.importance.MagnitudeImportance(p=2)
    with enable_grad():
        peer.pruner.BasePruner(theirs, example[:2], sizes, pruning_ratio=ratio, ignored_layers=[head]).step()
    return theirs.eval()


def ratio_for(network: nn.Module, example: Tensor, budget: int) -> float:
    """Return the pruning ratio at which torch-pruning comes nearest to a budget of MACs, by halving."""
    low, high, tried = 0.0, 1.0, []
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        cost = macs(at_ratio(network, example, middle), example)
        tried.append((abs(cost - budget), middle))
        low, high = (middle, high) if cost > budget else (low, middle)
    return min(tried)[1]


def _peer() -> Any:
    try:
        return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise ValueError("torch-pruning is not installed: pip install 'optimisation-studio[bench]'") from error
