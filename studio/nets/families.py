"""Plain networks built from their widths alone, so that a network that has grown can be built again.

The widths stand in the order in which their layers are executed. Every module is one of `torch.nn` or an activation of
`studio.nets.activations`, in a flat `nn.Sequential` with speaking names, which `torch.fx` traces as it stands.
"""

__all__ = ["FAMILIES", "NETWORKS", "POOLS", "draw", "family", "mlp", "mobilenet", "pointnet", "vgg"]

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from studio.nets.activations import ACTIVATIONS

FAMILIES = ("mlp", "vgg", "mobilenet", "pointnet")
NETWORKS = (*FAMILIES, "resnet")
POOLS = ("average", "max")
FEWEST = {"mlp": 1, "vgg": 1, "mobilenet": 2, "pointnet": 2, "resnet": 2}
WIDEST = 4096
SMALLEST_SIDE = 4
AXES = 3
Network = TypeVar("Network", bound=nn.Module)
Shape = tuple[int, int, int]


def family(
    name: str, shape: tuple[int, ...], widths: Sequence[int], outputs: int, activation: str = "silu",
    pool: str = "average",
) -> nn.Module:  # fmt: skip
    """Return an undrawn network of a family for inputs of one shape (batch left out); `draw` gives it its weights.

    `shape` is (channels, height, width) for vgg, mobilenet and resnet, (3, points) for pointnet and anything for
    an mlp. `pool` matters to vgg and pointnet alone. Raises `ValueError` where a name, a shape or a width does not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"family must be one of {', '.join(NETWORKS)}, got {name!r}")
    if name == "mlp":
        return mlp(math.prod(shape), widths, outputs, activation)
    if name == "pointnet":
        if len(shape) != 2 or shape[0] != AXES:
            raise ValueError(f"a pointnet takes clouds of shape (3, points), got {shape}: choose another family")
        return pointnet(widths, outputs, activation, pool)
    if len(shape) != 3:
        raise ValueError(f"a {name} takes pictures of shape (channels, height, width), got {shape}: choose an mlp")
    picture = (shape[0], shape[1], shape[2])
    if name == "vgg":
        return vgg(picture, widths, outputs, activation, pool)
    if name == "resnet":
        from studio.nets.residual import resnet

        return resnet(picture, _checked(name, widths), outputs, _activation(activation))
    return mobilenet(picture, widths, outputs, activation)


def mlp(inputs: int, widths: Sequence[int], outputs: int, activation: str, last_bias: bool = True) -> nn.Sequential:
    """Return an undrawn multi-layer perceptron: inputs are flattened, then a Linear and an activation a width.

    Without `last_bias` and with one width this is a sum of units, f(x) = sum_i w_i phi(t_i . x + b_i).
    """
    sizes = (inputs, *_checked("mlp", widths))
    with torch.device("meta"):
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for number, (wide, out) in enumerate(pairwise(sizes), start=1):
            layers |= {f"layer{number}": nn.Linear(wide, out), f"act{number}": _activation(activation)}
        layers["head"] = nn.Linear(sizes[-1], outputs, bias=last_bias)
    return _blank(layers)


def vgg(shape: Shape, widths: Sequence[int], classes: int, activation: str, pool: str) -> nn.Sequential:
    """Return an undrawn plain convolutional network, after Simonyan and Zisserman (2015, arXiv 1409.1556).

    A width is a 3 x 3 convolution with BatchNorm and activation; after every second one the sides are halved, unless
    that would leave fewer than 4 pixels. Then the mean over the picture, and one Linear layer.
    """
    widths, side = _checked("vgg", widths), min(shape[1:])
    halving = nn.MaxPool2d if _pool(pool) == "max" else nn.AvgPool2d
    with torch.device("meta"):
        layers: dict[str, nn.Module] = {}
        for number, (wide, out) in enumerate(pairwise((shape[0], *widths)), start=1):
            conv = nn.Conv2d(wide, out, 3, padding=1, bias=False)
            layers |= _unit("conv", number, conv, nn.BatchNorm2d(out), activation)
            if number % 2 == 0 and side // 2 >= SMALLEST_SIDE:
                layers[f"pool{number}"] = halving(2)
                side //= 2
        layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(widths[-1], classes)}
    return _blank(layers)


def mobilenet(shape: Shape, widths: Sequence[int], classes: int, activation: str) -> nn.Sequential:
    """Return an undrawn network of depthwise and pointwise pairs, after Howard et al. (2017, arXiv 1704.04861).

    The first width is a full 3 x 3 convolution. Every further one is a depthwise 3 x 3 convolution, which keeps the
    width before it, and a 1 x 1 convolution, each with BatchNorm and activation; every second depthwise has stride 2,
    unless that would leave fewer than 4 pixels. Then the mean over the picture, and one Linear layer.
    """
    widths, side = _checked("mobilenet", widths), min(shape[1:])
    with torch.device("meta"):
        stem = nn.Conv2d(shape[0], widths[0], 3, padding=1, bias=False)
        layers = _unit("conv", 0, stem, nn.BatchNorm2d(widths[0]), activation)
        for number, (wide, out) in enumerate(pairwise(widths), start=1):
            stride = 2 if number % 2 == 0 and (side + 1) // 2 >= SMALLEST_SIDE else 1
            side = (side + 1) // 2 if stride == 2 else side
            depthwise = nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False)
            pointwise = nn.Conv2d(wide, out, 1, bias=False)
            layers |= _unit("depthwise", number, depthwise, nn.BatchNorm2d(wide), activation)
            layers |= _unit("pointwise", number, pointwise, nn.BatchNorm2d(out), activation)
        layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(widths[-1], classes)}
    return _blank(layers)


def pointnet(widths: Sequence[int], classes: int, activation: str, pool: str) -> nn.Sequential:
    """Return an undrawn network of point clouds (b, 3, n), after Qi et al. (2017, arXiv 1612.00593).

    Every width but the last is a layer that sees each point alone (BatchNorm, activation). Then the largest value over
    the points ("max", as in the paper) or their mean ("average"), a hidden Linear layer of the last width, and the
    classes. The paper's networks that turn the input and its features are left out.
    """
    *points, hidden = _checked("pointnet", widths)
    pooling = nn.AdaptiveMaxPool1d(1) if _pool(pool) == "max" else nn.AdaptiveAvgPool1d(1)
    with torch.device("meta"):
        layers: dict[str, nn.Module] = {}
        for number, (wide, out) in enumerate(pairwise((AXES, *points)), start=1):
            layers |= _unit("point", number, nn.Conv1d(wide, out, 1, bias=False), nn.BatchNorm1d(out), activation)
        layers |= {"pool": pooling, "flatten": nn.Flatten(), "hidden": nn.Linear(points[-1], hidden)}
        layers |= {"hidden_act": _activation(activation), "head": nn.Linear(hidden, classes)}
    return _blank(layers)


def draw(network: Network, generator: torch.Generator) -> Network:
    """Give a network fresh weights and return it: normal of variance 2 / inputs (He et al., 2015), biases 0.

    BatchNorm starts as the identity. Numbers are drawn in float64 on the CPU and then rounded and moved, so that a
    network is the same on every device, and the same up to rounding in every number type.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            weight = torch.randn(module.weight.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                module.weight.copy_(weight * (2 / weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, _BatchNorm):
            module.reset_parameters()
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(f"{name} is a {type(module).__name__}: only Linear, Conv and BatchNorm can be drawn")
    return network


def _blank(layers: dict[str, nn.Module]) -> nn.Sequential:
    """Return the layers, laid out without memory or randomness, with all weights 0 and BatchNorm as the identity."""
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    network = network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.detach().zero_()
    for module in network:
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
    return network


def _unit(kind: str, number: int, layer: nn.Module, norm: nn.Module, activation: str) -> dict[str, nn.Module]:
    name = f"{kind}{number}"
    return {name: layer, f"{name}_norm": norm, f"{name}_act": _activation(activation)}


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def _pool(name: str) -> str:
    if name not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {name!r}")
    return name


def _checked(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    """Return the widths as a tuple; raises `ValueError` where they are too few, too small or too large."""
    if len(widths) < FEWEST[name]:
        raise ValueError(f"widths of the family {name} must be at least {FEWEST[name]}, got {len(widths)}: add layers")
    if any(not 1 <= width <= WIDEST for width in widths):
        raise ValueError(f"widths must be between 1 and {WIDEST:,}, got {tuple(widths)}: a layer needs neurons")
    return tuple(int(width) for width in widths)
