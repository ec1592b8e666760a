"""A traced network as JSON and back: its modules by class and settings, its graph node by node.

Only classes and functions of the lists below are written and read: a description from anybody can make a network, whose
size is checked before it is made, but cannot call anything else.
"""

__all__ = ["PARAMETER_LIMIT", "built", "described"]

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

PARAMETER_LIMIT = 500_000_000
NODE_LIMIT = 20_000
DEPTH = 8
MODULES: Mapping[str, type[nn.Module]] = {
    name: getattr(nn, name)
    for name in (
        "Linear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d BatchNorm1d BatchNorm2d "
        "BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d GroupNorm LayerNorm PReLU ReLU ReLU6 LeakyReLU "
        "ELU SELU CELU GELU SiLU Mish Sigmoid Tanh Softplus Softsign Hardswish Hardsigmoid Hardtanh LogSigmoid "
        "Tanhshrink Softshrink Softmax LogSoftmax Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout "
        "AvgPool1d AvgPool2d AvgPool3d MaxPool1d MaxPool2d MaxPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d "
        "AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d Flatten Upsample ZeroPad2d"
    ).split()
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    f"{home}.{name}": getattr(module, name)
    for home, module, names in (
        ("operator", operator, "add sub mul truediv iadd isub imul itruediv neg getitem pow"),
        ("torch", torch, "add sub mul div cat concat flatten relu sigmoid tanh exp neg square sqrt abs clamp maximum "
         "minimum mean sum amax amin max transpose permute reshape squeeze unsqueeze softmax log_softmax pow chunk "
         "split matmul"),
        ("F", F, "relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign hardswish hardsigmoid hardtanh "
         "softmax log_softmax dropout avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d "
         "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
         "adaptive_max_pool3d interpolate sigmoid tanh"),
    )
    for name in names.split()
}  # fmt: skip
NAMED = {id(function): name for name, function in reversed(FUNCTIONS.items())}
METHODS = frozenset(
    "add sub mul div relu sigmoid tanh exp neg square sqrt abs clamp pow mean sum amax amin max flatten view reshape "
    "squeeze unsqueeze transpose permute contiguous size softmax log_softmax chunk split float double".split()
)


def described(network: nn.Module) -> dict[str, Any]:
    """Return the architecture of a network as JSON data, without its weights.

    Raises `ValueError`, naming it, where an operation or a module is not among those that can be described.
    """
    graph = network if isinstance(network, fx.GraphModule) else fx.symbolic_trace(network)
    modules: dict[str, Any] = {}
    tensors: dict[str, list[int]] = {}
    nodes = []
    for node in graph.graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            modules[target] = _module(target, graph.get_submodule(target))
        elif node.op == "get_attr":
            tensors[target] = list(graph.get_parameter(target).shape)
        elif node.op == "call_function":
            if id(node.target) not in NAMED:
                raise ValueError(f"{node.name} calls {node.target}, which cannot be described: save its state_dict")
            target = NAMED[id(node.target)]
        elif node.op == "call_method" and target not in METHODS:
            raise ValueError(f"{node.name} calls the method {target}, which cannot be described: save its state_dict")
        kwargs = {key: _written(value) for key, value in node.kwargs.items()}
        nodes.append([node.name, node.op, target, [_written(part) for part in node.args], kwargs])
    return {"modules": modules, "tensors": tensors, "nodes": nodes}


def built(description: Mapping[str, Any]) -> fx.GraphModule:
    """Return the network of a description, on the device "meta" and without weights; the description may be hostile.

    Raises `ValueError`, in a sentence, where it is not such a description or describes too large a network.
    """
    try:
        return _built(description)
    except ValueError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"this is no readable architecture ({type(error).__name__}): save the network again"
        ) from error


def _built(description: Mapping[str, Any]) -> fx.GraphModule:
    nodes = description["nodes"]
    if len(nodes) > NODE_LIMIT or len(description["modules"]) > NODE_LIMIT:
        raise ValueError(f"the architecture has {len(nodes):,} nodes: at most {NODE_LIMIT:,} are read")
    root: dict[str, Any] = {}
    with torch.device("meta"):
        for name, (kind, settings) in description["modules"].items():
            if kind not in MODULES:
                raise ValueError(f"module {name} is a {kind}, which is not one of those that are read")
            _bounded(settings)
            root[name] = MODULES[kind](**{key: _tuples(value) for key, value in settings.items()})
        for name, shape in description["tensors"].items():
            _bounded(shape)
            root[name] = nn.Parameter(torch.empty(shape))
    size = sum(
        part.numel() for each in root.values() for part in ([each] if isinstance(each, Tensor) else each.parameters())
    )
    if size > PARAMETER_LIMIT:
        raise ValueError(f"the architecture has {size:,} parameters: at most {PARAMETER_LIMIT:,} are read")
    graph, made = fx.Graph(), {}
    for name, op, target, args, kwargs in nodes:
        allowed = {"placeholder": True, "output": True, "call_module": target in root, "get_attr": target in root,
                   "call_function": target in FUNCTIONS, "call_method": target in METHODS}  # fmt: skip
        if not allowed.get(op, False) or not str(name).isidentifier():
            raise ValueError(f"node {name!r} does {op} {target!r}, which is not one of those that are read")
        if op == "placeholder" and not str(target).isidentifier():
            raise ValueError(f"{target!r} is no name for an input")
        call: Any = FUNCTIONS[target] if op == "call_function" else target
        given = tuple(_read(part, made) for part in args)
        made[name] = graph.create_node(op, call, given, {str(k): _read(v, made) for k, v in kwargs.items()}, name)
    graph.lint()
    return fx.GraphModule(root, graph)


def _module(name: str, module: nn.Module) -> list[Any]:
    """Return a module's class and the settings that make another like it."""
    kind = type(module).__name__
    if MODULES.get(kind) is not type(module):
        raise ValueError(f"module {name} is a {kind}, which cannot be described: save its state_dict")
    settings = {}
    for key in inspect.signature(type(module).__init__).parameters:
        if key in ("self", "device", "dtype", "init") or not hasattr(module, key):
            continue
        value = getattr(module, key)
        settings[key] = value is not None if key == "bias" else value
    return [kind, settings]


def _written(value: Any, depth: int = 0) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and depth < DEPTH:
        return [_written(part, depth + 1) for part in value]
    if isinstance(value, slice):
        return {"slice": [_written(part) for part in (value.start, value.stop, value.step)]}
    raise ValueError(f"an argument is a {type(value).__name__}, which cannot be described: save its state_dict")


def _read(value: Any, made: Mapping[str, fx.Node], depth: int = 0) -> Any:
    if isinstance(value, dict):
        return made[value["node"]] if "node" in value else slice(*(_read(part, made, DEPTH) for part in value["slice"]))
    if isinstance(value, list):
        if depth >= DEPTH:
            raise ValueError("arguments lie too deep: save the network again")
        return tuple(_read(part, made, depth + 1) for part in value)
    return value


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _bounded(settings: Any) -> None:
    """Raise `ValueError` for sizes no network has, before anything is made of them."""
    values = settings.values() if isinstance(settings, dict) else settings
    numbers = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    if any(
        isinstance(part, int | float) and not (math.isfinite(part) and abs(part) <= PARAMETER_LIMIT) for part in numbers
    ):
        raise ValueError("the architecture has a size beyond all bounds: save the network again")
