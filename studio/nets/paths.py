"""The way from a neuron to its readers: the part of a traced network through which its channel goes alone.

The splitting matrix of a neuron (Wu, Wang and Liu, arXiv 1910.02366) must be that of this whole way, up to where its
copies' outputs are added by a reader: batch norm, activation, and a depthwise filter with its own activation behind.
"""

__all__ = ["Path", "Probe", "bent", "path_of", "probe", "walked", "writes_in_place"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _BatchNorm

from studio.nets.activations import Gaussian
from studio.nets.space_rules import ACTIVATION_NAMES, ACTIVATIONS
from studio.nets.spaces import Spaces

SHARPNESS = 3.0  # of the softplus that stands in for a kink, as in the paper's code
LINEAR = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Identity, nn.Dropout,
    nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Flatten, nn.Upsample, nn.ZeroPad2d, nn.Linear,
)  # fmt: skip
LINEAR_NAMES = frozenset(
    "add iadd sub isub neg mean sum flatten view reshape squeeze unsqueeze transpose permute cat concat "
    "concatenate contiguous clone float double to dropout dropout1d dropout2d dropout3d alpha_dropout avg_pool1d "
    "avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d getitem chunk split "
    "unbind".split()
)
PRODUCTS = frozenset("mul imul div truediv itruediv".split())  # linear in one factor
KINKED = frozenset(
    "relu relu6 leakyrelu leaky_relu prelu hardtanh hardswish hardsigmoid softshrink selu abs clamp maximum minimum "
    "amax amin max min maxpool1d maxpool2d maxpool3d max_pool1d max_pool2d max_pool3d adaptivemaxpool1d "
    "adaptivemaxpool2d adaptivemaxpool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d".split()
)


@dataclass(frozen=True, eq=False)
class Path:
    """The nodes between the calls of a writer and those of its readers.

    `steps` are in the order of the graph, without writers and readers; `reads` are the calls of the readers, each with
    the node it reads. `bend` is the only bent step where the path is simple (writer, perhaps batch norm, activation,
    then linear steps only), and `norm` the batch norm before it. `kinks` names the steps without a second derivative.
    """

    space: int
    writer: str
    calls: tuple[fx.Node, ...]
    steps: tuple[fx.Node, ...]
    reads: tuple[tuple[fx.Node, fx.Node], ...]
    bend: fx.Node | None
    norm: fx.Node | None
    kinks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Probe:
    """A network's values on a batch: of nodes, and the gradient of the mean loss at what the readers are given.

    `at_reads` are gradients by (reader's call, node read), each through that reader alone; `at_bends` are the whole
    gradients behind the bends of simple paths.
    """

    loss: Tensor
    values: dict[fx.Node, Any]
    at_reads: dict[tuple[fx.Node, fx.Node], Tensor]
    at_bends: dict[fx.Node, Tensor]


def path_of(network: nn.Module, spaces: Spaces, space: int) -> Path:
    """Return the path of a splittable space of a traced network.

    Raises `ValueError` where the space cannot be split, was declared by hand, or its neurons are linear: copies of a
    linear neuron average to itself, so that splitting it changes nothing at any step size.
    """
    found = spaces[space]
    if not found.splittable:
        raise ValueError(f"space {found.name} cannot be split: {found.frozen or found.whole}")
    if spaces.traced is None:
        raise ValueError(f"space {found.name} was declared by hand, there is no graph to follow: measure its splits")
    values, nodes = spaces.traced.values, tuple(spaces.traced.graph.graph.nodes)
    readers = {axis.module for axis in spaces.along(space, "reader")}
    calls = tuple(node for node in nodes if node.op == "call_module" and node.target == found.writers[0])
    inside, steps, reads = set(calls), [], []
    for node in nodes:
        sources = [source for source in node.all_input_nodes if source in inside]
        if node in inside or not sources:
            continue
        if node.op == "call_module" and node.target in readers and any(_has(values, s, space) for s in sources):
            reads += [(node, source) for source in sources]
        elif node in values and _has(values, node, space):
            inside.add(node)
            steps.append(node)
    bends = [node for node in steps if not _linear(network, node, inside)]
    if not bends:
        raise ValueError(f"space {found.name} cannot be split: its neurons are linear, so their copies change nothing")
    kinks = tuple(dict.fromkeys(_kind(network, node) for node in bends if _kind(network, node) in KINKED))
    bend, norm = _simple(network, calls, steps, bends)
    return Path(space, found.writers[0], calls, tuple(steps), tuple(reads), bend, norm, kinks)


def probe(
    network: nn.Module, paths: list[Path], spaces: Spaces, inputs: Tensor, loss: Callable[[Tensor], Tensor]
) -> Probe:
    """Return the values and gradients of one batch that all paths need, from one pass forward and one back.

    The network must be in evaluation mode. `loss` takes its outputs and returns the mean loss.
    """
    assert spaces.traced is not None
    wanted = {node for path in paths for node in _needed(path)}
    pairs = {pair for path in paths for pair in path.reads if path.bend is None}
    bends = {path.bend for path in paths if path.bend is not None}
    graph = spaces.traced.graph
    written = any(writes_in_place(network, node) for node in graph.graph.nodes)
    runner = _Recorder(graph, wanted, pairs, bends, written)
    with torch.enable_grad():
        value = loss(runner.run(inputs))
        marks = [*runner.reads.values(), *runner.bends.values()]
        gradients = torch.autograd.grad(value, marks, materialize_grads=True)
    at_reads = dict(zip(runner.reads, gradients, strict=False))
    at_bends = dict(zip(runner.bends, gradients[len(runner.reads) :], strict=True))
    return Probe(value.detach(), runner.kept, at_reads, at_bends)


def walked(network: nn.Module, path: Path, found: Probe, weights: dict[str, Tensor]) -> dict[fx.Node, Tensor]:
    """Return the values along a path when its writer has these weights; kinks are rounded off by softplus."""
    writer = network.get_submodule(path.writer)
    values: dict[fx.Node, Tensor] = {}

    def look(node: fx.Node) -> Any:
        return values[node] if node in values else found.values[node]

    for node in path.calls:
        given = tuple(map_arg(node.args, look))
        values[node] = torch.func.functional_call(writer, weights, given)
    for node in path.steps:
        args, kwargs = map_arg(node.args, look), map_arg(node.kwargs, look)
        values[node] = _call(network, node)(*args, **kwargs)
    return values


def bent(network: nn.Module, node: fx.Node) -> bool:
    """Return whether a node is an activation: it acts on every entry of its one input by itself and is not linear."""
    plain = _kind(network, node) in PRODUCTS | LINEAR_NAMES or _linear(network, node, set())
    return _pointwise(network, node) and not plain


def rounded(network: nn.Module, node: fx.Node) -> Callable[..., Tensor]:
    """Return the activation of a node as a function of its one input, with a second derivative."""
    called = _call(network, node)
    return lambda z: called(*map_arg(node.args, lambda _: z), **map_arg(node.kwargs, lambda _: z))


def _call(network: nn.Module, node: fx.Node) -> Callable[..., Any]:
    kind = _kind(network, node)
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if kind in ROUNDED:
        return partial(ROUNDED[kind], module)
    if module is not None:
        return module
    if node.op == "call_method":
        return lambda *args, **kwargs: getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target  # type: ignore[return-value]


def _soft(x: Tensor) -> Tensor:
    return F.softplus(x, beta=SHARPNESS)


def _leaky(module: nn.Module | None, x: Tensor, *rest: Any, **given: Any) -> Tensor:
    slope: Any = getattr(module, "negative_slope", rest[0] if rest else given.get("negative_slope", 0.01))
    return slope * x + (1 - slope) * _soft(x)


# Kinks rounded off as the paper's code does: ReLU becomes a softplus, what is made of ReLUs is made of softplus.
ROUNDED: dict[str, Callable[..., Tensor]] = {
    "relu": lambda module, x, *rest, **given: _soft(x),
    "relu6": lambda module, x, *rest, **given: _soft(x) - _soft(x - 6),
    "leakyrelu": _leaky,
    "leaky_relu": _leaky,
}


def _kind(network: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))).__name__.lower()
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return str(name).rstrip("_")


def _linear(network: nn.Module, node: fx.Node, inside: set[fx.Node]) -> bool:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return isinstance(module, LINEAR) and not (isinstance(module, _BatchNorm) and module.running_var is None)
    kind = _kind(network, node)
    if kind in PRODUCTS:
        own = [argument in inside for argument in node.args[:2]]
        return sum(own) == 1 and (own[0] or "mul" in kind)
    return kind in LINEAR_NAMES


def _pointwise(network: nn.Module, node: fx.Node) -> bool:
    """Return whether a node acts on every entry of its one input by itself."""
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), (*ACTIVATIONS, Gaussian))
    return _kind(network, node) in ACTIVATION_NAMES | PRODUCTS


def _has(values: dict[fx.Node, Any], node: fx.Node, space: int) -> bool:
    return node in values and any(part.space == space for part in values[node][1])


def _simple(
    network: nn.Module, calls: tuple[fx.Node, ...], steps: list[fx.Node], bends: list[fx.Node]
) -> tuple[fx.Node | None, fx.Node | None]:
    """Return the one bend and the batch norm before it, where the path is writer, batch norm, bend, linear steps."""
    writer = network.get_submodule(str(calls[0].target))
    plain = isinstance(writer, nn.Linear) or (
        isinstance(writer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and writer.groups == 1
        and writer.padding_mode == "zeros"
        and not isinstance(writer.padding, str)
    )
    if len(calls) != 1 or not plain or len(bends) != 1:
        return None, None
    bend, source, norm = bends[0], bends[0].all_input_nodes[0], None
    if not _pointwise(network, bend):
        return None, None
    if source.op == "call_module" and isinstance(network.get_submodule(str(source.target)), _BatchNorm):
        norm, source = source, source.all_input_nodes[0]
    before = [calls[0], *([norm] if norm is not None else [])]
    alone = source is calls[0] and all(len(node.users) == 1 for node in before)
    return (bend, norm) if alone else (None, None)


def _needed(path: Path) -> set[fx.Node]:
    """Return the nodes whose values the product of a path reads."""
    if path.bend is not None:
        return {*path.calls[0].all_input_nodes, *path.bend.all_input_nodes}
    return {source for node in (*path.calls, *path.steps) for source in node.all_input_nodes}


def writes_in_place(network: nn.Module, node: fx.Node) -> bool:
    """Return whether an operation may write into what it is given."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    written = name.endswith("_") and not name.endswith("__")
    return node.op in ("call_function", "call_method") and (
        written or name in ("iadd", "isub", "imul", "itruediv", "setitem") or bool(node.kwargs.get("inplace"))
    )


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps some values, with a mark on each reading through which its gradient can be told apart."""

    def __init__(
        self, graph: fx.GraphModule, wanted: set[fx.Node], pairs: set[Any], bends: set[fx.Node], copies: bool
    ) -> None:
        super().__init__(graph)
        self._wanted, self._pairs, self._bends, self._copies = wanted, pairs, bends, copies
        self.kept: dict[fx.Node, Any] = {}
        self.reads: dict[tuple[fx.Node, fx.Node], Tensor] = {}
        self.bends: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, with a mark of its own on each value whose gradient through this node is wanted.

        Copies are kept where operations in place may follow.
        """
        own = {source: self.env[source] for source in n.all_input_nodes if (n, source) in self._pairs}
        for source, value in own.items():
            self.reads[n, source] = self.env[source] = _mark(value)
        value = super().run_node(n)
        self.env.update(own)
        if n in self._bends:
            self.bends[n] = _mark(value)
            value = self.bends[n].clone() if self._copies else self.bends[n]
        if n in self._wanted:
            still = value.detach() if isinstance(value, Tensor) else value
            self.kept[n] = still.clone() if self._copies and isinstance(still, Tensor) else still
        return value


def _mark(value: Tensor) -> Tensor:
    """Return a view of a value to differentiate by, also where nothing before it can be trained."""
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
