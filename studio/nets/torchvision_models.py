"""The classifiers that torchvision publishes with their weights: built here, read from a file on this machine."""

__all__ = ["MODELS", "torchvision_architecture", "torchvision_model", "weights_file"]

import re
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from studio.files.weights import checkpoint, load_tensors
from studio.nets.torchvision_compat import import_torchvision

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "squeezenet1_1")
# The files of densenets name "norm.1" what is "norm1" in the module; torchvision renames it in the same way.
RENAMED = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


def torchvision_model(name: str) -> nn.Module:
    """Return the pretrained network of that name in evaluation mode, on the CPU; not to be changed, as it is kept.

    The file is the one of torchvision's default weights. It is looked for, never fetched, and its tensors alone are
    read. Raises `ValueError`, in one sentence, where it is absent, another one, damaged or of another network.
    """
    path = checkpoint(weights_file(name))
    status = path.stat()
    return _loaded(name, path, (status.st_size, status.st_mtime_ns))


def torchvision_architecture(name: str) -> nn.Module:
    """Return the network of that name in evaluation mode with all weights 0; a `ValueError` lists the names."""
    models = _models(name)
    with torch.device("meta"):
        network = models.get_model(name, weights=None)
    network = network.to_empty(device="cpu").eval()
    for part in network.state_dict().values():
        part.zero_()
    return network


def weights_file(name: str) -> str:
    """Return the file name of the default weights of the network of that name."""
    return _models(name).get_model_weights(name).DEFAULT.url.rpartition("/")[2]


def _models(name: str) -> ModuleType:
    if name not in MODELS:
        raise ValueError(f"network must be one of {', '.join(MODELS)}, got {name!r}")
    return import_torchvision().models


@lru_cache(maxsize=1)
def _loaded(name: str, path: Path, stamp: tuple[int, int]) -> nn.Module:
    network = torchvision_architecture(name)
    state = {RENAMED.sub(r"\1\2.", key): part for key, part in load_tensors(path).items()}
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise ValueError(f"{path} holds the weights of another network than {name}: fetch the file again") from None
    return network
