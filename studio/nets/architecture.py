"""A traced network as JSON and back: its modules by class and settings, its graph node by node.

Only classes and functions of the lists below are written and read: a description from anybody can make a network, whose
size is checked before it is made, but cannot call anything else.
"""

__all__ = ["PARAMETER_LIMIT", "beginning", "built", "described"]

import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from studio.nets.tracing import graph_of

PARAMETER_LIMIT = 500_000_000
NODE_LIMIT = 5_000
DEPTH = 8
LIST_LIMIT = 1024
NAME_LIMIT = 200
WORD_LIMIT = 64
INTEGER_LIMIT = 2**40
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
LARGEST = 1_000_000
WHOLES: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys("in_features out_features in_channels out_channels num_features num_channels num_parameters "
                    "normalized_shape groups num_groups divisor_override".split(), (1, LARGEST)),
    **dict.fromkeys("kernel_size stride dilation output_size".split(), (1, 1024)),
    **dict.fromkeys("padding output_padding".split(), (0, 1024)),
    "size": (1, 4096), **dict.fromkeys("dim start_dim end_dim".split(), (-8, 8)),
}  # fmt: skip
REALS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys("eps momentum p".split(), (0.0, 1.0)),
    **dict.fromkeys("negative_slope alpha beta threshold min_val max_val lambd".split(), (-1e6, 1e6)),
    "scale_factor": (1e-3, 64.0),
}
FLAGS = frozenset(
    "bias affine track_running_stats elementwise_affine inplace ceil_mode count_include_pad return_indices "
    "align_corners recompute_scale_factor".split()
)
WORDS: Mapping[str, tuple[str, ...]] = {
    "padding": ("same", "valid"),
    "padding_mode": ("zeros", "reflect", "replicate", "circular"),
    "mode": ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"),
    "approximate": ("none", "tanh"),
}
OPTIONAL = frozenset(
    "momentum stride output_size size scale_factor divisor_override align_corners recompute_scale_factor dim".split()
)
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
RESERVED = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
NAMED = {id(function): name for name, function in reversed(FUNCTIONS.items())}
METHODS = frozenset(
    "add sub mul div relu sigmoid tanh exp neg square sqrt abs clamp pow mean sum amax amin max flatten view reshape "
    "squeeze unsqueeze transpose permute contiguous size softmax log_softmax chunk split float double".split()
)


def described(network: nn.Module) -> dict[str, Any]:
    """Return the architecture of a network as JSON data, without its weights.

    Raises `ValueError`, naming it, where an operation or a module is not among those that can be described.
    """
    graph = network if isinstance(network, fx.GraphModule) else graph_of(network)
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
    except (LookupError, TypeError, AttributeError, RuntimeError, OverflowError, AssertionError, SyntaxError) as error:
        raise ValueError(
            f"this is no readable architecture ({type(error).__name__}): save the network again"
        ) from error


def beginning(error: BaseException) -> str:
    """Return the beginning of what an error says, as a part of one sentence."""
    said = str(error).strip().split("\n")[0]
    return " ".join(said.encode("ascii", "replace").decode().split())[:100].rstrip(".: ") or type(error).__name__


def _built(description: Mapping[str, Any]) -> fx.GraphModule:
    nodes, modules, tensors = description["nodes"], description["modules"], description["tensors"]
    if max(len(nodes), len(modules), len(tensors)) > NODE_LIMIT:
        raise ValueError(f"the architecture has {len(nodes):,} nodes: at most {NODE_LIMIT:,} are read")
    root: dict[str, Any] = {}
    size = 0
    with torch.device("meta"):
        for name, entry in modules.items():
            root[name] = made = _made(_placed(name, modules, tensors), *entry[:2])
            size += sum(part.numel() for part in made.parameters())
        for name, shape in tensors.items():
            made = _parameter(_placed(name, modules, tensors), shape, modules, root)
            size += made.numel()
            root[name] = made
    if size > PARAMETER_LIMIT:
        raise ValueError(f"the architecture has {size:,} parameters: at most {PARAMETER_LIMIT:,} are read")
    graph = _graph(nodes, modules, tensors)
    try:
        graph.lint()
        return fx.GraphModule(root, graph)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ValueError("this is no readable architecture (its graph is not sound): save the network again") from error


def _graph(nodes: list[Any], modules: Mapping[str, Any], tensors: Mapping[str, Any]) -> fx.Graph:
    """Return the graph of some nodes: one input, one output at the end, and nothing used before it is made."""
    graph, made = fx.Graph(), {}
    for entry in nodes:
        if not isinstance(entry, list) or [type(part) for part in entry[3:]] != [list, dict]:
            raise ValueError(f"{_short(entry)} describes no node: save the network again")
        name, op, target, args, kwargs = entry
        allowed = {"placeholder": True, "output": True, "call_module": target in modules, "get_attr": target in tensors,
                   "call_function": target in FUNCTIONS, "call_method": target in METHODS}  # fmt: skip
        if not allowed.get(op, False) or not isinstance(target, str) or not _plain(name) or name in made:
            raise ValueError(
                f"node {_short(name)} does {_short(op)} {_short(target)}, which is not one of those that are read: "
                "save the network again"
            )
        if op == "placeholder" and not _plain(target):
            raise ValueError(f"{_short(target)} is no name for an input: save the network again")
        given = tuple(_read(part, made) for part in args)
        named = {_keyword(key): _read(value, made) for key, value in kwargs.items()}
        call: Any = FUNCTIONS[target] if op == "call_function" else target
        made[name] = node = graph.create_node(op, call, given, named, name)
        if not _fed(node):
            raise ValueError(f"node {_short(name)} is not given what it needs: save the network again")
    kinds = [entry[1] for entry in nodes]
    if kinds.count("placeholder") != 1 or kinds.count("output") != 1 or kinds[-1] != "output":
        raise ValueError("a network must have one input, and one output at its end: wrap it in a module that has")
    return graph


def _fed(node: fx.Node) -> bool:
    """Return whether a node is given what its kind needs: an operation at least one value, an input nothing."""
    if node.op in ("placeholder", "get_attr"):
        return not node.args and not node.kwargs
    first = len(node.args) > 0 and isinstance(node.args[0], fx.Node)
    if node.op == "output":
        return first and len(node.args) == 1 and not node.kwargs
    return first or (node.op != "call_method" and len(node.all_input_nodes) > 0)


def _placed(name: str, modules: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """Return the dotted name of a part; raises `ValueError` where it would hide or reach something else."""
    parts = name.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    inside = any(each in tensors or (each in modules and name in modules) for each in above)
    if len(name) > NAME_LIMIT or not NAME.fullmatch(name) or RESERVED & set(parts) or inside:
        raise ValueError(f"{_short(name)} is no name for a part of a network: save the network again")
    if name in modules and name in tensors:
        raise ValueError(f"{_short(name)} is both a module and a tensor: save the network again")
    return name


def _made(name: str, kind: str, settings: Mapping[str, Any]) -> nn.Module:
    if kind not in MODULES:
        raise ValueError(
            f"module {_short(name)} is a {_short(kind)}, which is not one of those that are read: save its state_dict"
        )
    for key, value in settings.items():
        if not _fits(kind, key, value):
            raise ValueError(
                f"module {_short(name)} has the setting {_short(key)} at {_short(value)}, which is beyond all bounds: "
                "save the network again"
            )
    try:
        return MODULES[kind](
            **{key: tuple(value) if isinstance(value, list | tuple) else value for key, value in settings.items()}
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"module {_short(name)} is no {kind} that can be made ({beginning(error)}): save the network again"
        ) from error


def _parameter(name: str, shape: list[int], modules: Mapping[str, Any], root: Mapping[str, Any]) -> nn.Parameter:
    """Return a parameter that a node reads by itself, of its own or a module's, which must then have it."""
    if len(shape) > DEPTH or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(
            f"tensor {_short(name)} has the shape {_short(shape)}, which is beyond all bounds: save it again"
        )
    if math.prod(shape) > PARAMETER_LIMIT:
        raise ValueError(f"tensor {_short(name)} has {_short(shape)} parameters: at most {PARAMETER_LIMIT:,} are read")
    owner, _, key = name.rpartition(".")
    parts = name.split(".")
    if any(".".join(parts[:depth]) in modules for depth in range(1, len(parts))):
        found = dict(root[owner].named_parameters()).get(key) if owner in root else None
        if found is None or list(found.shape) != shape:
            raise ValueError(f"tensor {_short(name)} is none of its module's: save the network again")
    return nn.Parameter(torch.empty(shape))


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
    """Return an argument as it is passed: a number, a short word, a node made before, a slice or a tuple of those."""
    if isinstance(value, dict):
        if set(value) == {"node"}:
            if value["node"] not in made:
                raise ValueError(f"node {_short(value['node'])} is used before it is made: save the network again")
            return made[value["node"]]
        bounds = value["slice"]
        if not isinstance(bounds, list) or len(bounds) != 3:
            raise ValueError(f"{_short(value)} is no slice: save the network again")
        return slice(*(_read(part, made) for part in bounds if _whole(part)))
    if isinstance(value, list):
        if depth >= DEPTH or len(value) > LIST_LIMIT:
            raise ValueError("arguments lie too deep or are too many: save the network again")
        return tuple(_read(part, made, depth + 1) for part in value)
    large = isinstance(value, int) and abs(value) > INTEGER_LIMIT
    if large or (isinstance(value, str) and len(value) > WORD_LIMIT) or value != value:
        raise ValueError(f"the argument {_short(value)} is beyond all bounds: save the network again")
    return value


def _whole(part: Any) -> bool:
    """Return true for what may bound a slice; raises `ValueError` for all else."""
    if part is None or isinstance(part, int) or (isinstance(part, dict) and "node" in part):
        return True
    raise ValueError(f"a slice cannot have the bound {_short(part)}: save the network again")


def _keyword(key: str) -> str:
    """Return the name of a named argument: it becomes a part of the network's code, so it is a plain word."""
    if not _plain(key) or key == "out":
        raise ValueError(f"{_short(key)} is no name for an argument: save the network again")
    return key


def _plain(name: Any) -> bool:
    return isinstance(name, str) and bool(WORD.fullmatch(name)) and not iskeyword(name) and name != "self"


def _fits(kind: str, key: str, value: Any) -> bool:
    """Return whether a setting is known and within its bounds."""
    parts = value if isinstance(value, list | tuple) else [value]
    return 0 < len(parts) <= 6 and all(_fits_one(kind, key, part) for part in parts)


def _fits_one(kind: str, key: str, part: Any) -> bool:
    if part is None:
        return key in OPTIONAL
    if isinstance(part, bool):
        return key in FLAGS
    if isinstance(part, str):
        return part in WORDS.get(key, ())
    if key not in WHOLES and key not in REALS:
        return False
    low, high = WHOLES.get(key, REALS.get(key, (0, 0)))
    crops = kind == "ZeroPad2d" and key == "padding"
    return (isinstance(part, int) or key in REALS) and (-high if crops else low) <= part <= high


def _short(value: Any) -> str:
    """Return how a stranger's value is shown in a sentence: quoted, without control characters, and cut."""
    text = ascii(value) if not isinstance(value, str) else ascii(value[:NAME_LIMIT])
    return text if len(text) <= 40 else f"{text[:40]}..."
