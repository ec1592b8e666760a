"""The networks a pruning study begins with: one of a family, to be trained, or one from a user's file."""

__all__ = ["BROUGHT", "WHOLE", "begun_network", "brought_network"]

import copy
from functools import lru_cache

import torch
from torch import nn

from studio.core.seeds import generator_from
from studio.files.networks import kept_network
from studio.nets.families import draw, family
from studio.nets.network_files import load_network
from studio.nets.trial import trial
from studio.problems.growth_images import GrowthImages

BROUGHT = "file"
# What a network of each family has before it is pruned; small enough to train on two cores.
WHOLE = {
    "mlp": (256,), "vgg": (32, 32, 64, 64), "mobilenet": (32, 32, 64, 64, 128), "resnet": (16, 16, 32, 32, 64, 64),
    "pointnet": (32, 64, 128, 64),
}  # fmt: skip


def begun_network(problem: GrowthImages, width: float, seed: int) -> nn.Module:
    """Return a freshly drawn network of the problem's family, `width` times as wide as `WHOLE`, on its device."""
    widths = [max(1, round(width * wide)) for wide in WHOLE[problem.family]]
    made = family(problem.family, problem.shape, widths, len(problem.classes), problem.activation, problem.pool)
    return draw(made, generator_from(seed, "network to prune")).to(problem.inputs)


def brought_network(problem: GrowthImages, name: str) -> nn.Module:
    """Return the network of a user's file, in the problem's number type and on its device.

    It must take the problem's inputs and give one output a class: a `ValueError` says, in a sentence, where not.
    """
    return copy.deepcopy(_read(name, problem.shape, len(problem.classes))).to(problem.inputs)


@lru_cache(maxsize=2)
def _read(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    network = load_network(kept_network(name))[0].float()
    trial(network, torch.zeros(2, *shape), classes)
    return network
