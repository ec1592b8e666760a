"""The rules by which channels are followed through a traced network: what each operation does to them."""

__all__ = ["Follower"]

import operator
from collections.abc import Iterable
from math import lcm
from typing import Any

from torch import fx, nn

from studio.nets.spaces import Axis, Segment

Layout = tuple[Segment, ...]
Value = tuple[int, Layout]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PER_CHANNEL = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
# What acts on every entry by itself.
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
# What acts on every channel by itself, where the channels lie along axis 1.
POOLS = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip
ACTIVATION_NAMES = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh softplus softsign hardswish hardsigmoid hardtanh "
    "logsigmoid tanhshrink softshrink exp neg square sqrt abs sin cos clamp pow reciprocal log log1p expm1 dropout "
    "dropout1d dropout2d dropout3d alpha_dropout contiguous clone float double half to".split()
)
POOL_NAMES = frozenset(
    "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate".split()
)
COMBINING = frozenset("add iadd sub isub mul imul truediv itruediv div maximum minimum".split())
REDUCING = frozenset("mean sum amax amin max min std var logsumexp".split())
# Where these take their axis, and which one they take where none is given.
ALONG_ONE = {"softmax": (1, None), "log_softmax": (1, None), "chunk": (2, 0), "split": (2, 0), "unbind": (1, 0)}
RESHAPING = frozenset("flatten view reshape squeeze unsqueeze".split())


class Follower:
    """Walks through a traced graph once; `axes`, `values` and the spaces (still to be united) are what it finds."""

    def __init__(self, graph: fx.GraphModule, elementwise: tuple[type[nn.Module], ...]) -> None:
        self.axes: list[Axis] = []
        self.values: dict[fx.Node, Value] = {}
        self.sizes: list[int] = []
        self.frozen: list[str] = []
        self.groups: list[int] = []
        self.fetched: set[str] = set()
        self._parents: list[int] = []
        self._graph = graph
        self._modules = dict(graph.named_modules())
        self._parameters = dict(graph.named_parameters())
        self._pointwise = (*ACTIVATIONS, *elementwise)
        self._calls: dict[str, tuple[Value | None, Value | None]] = {}

    def follow(self) -> None:
        """Follow the channels from the first node to the last."""
        for node in self._graph.graph.nodes:
            value = self._value(node)
            if value is not None:
                self.values[node] = value

    def root(self, space: int) -> int:
        """Return the space with which `space` has been united."""
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def _value(self, node: fx.Node) -> Value | None:
        if node.op == "call_module":
            return self._call(node, str(node.target), self._modules[str(node.target)])
        if node.op == "get_attr":
            self.fetched.add(str(node.target))
        if node.op == "output":
            return self._lost(node, "the network returns its channels")
        if node.op in ("call_function", "call_method"):
            return self._function(node, _kind(node))
        return None

    def _call(self, node: fx.Node, name: str, module: nn.Module) -> Value | None:
        found = self._given(node)
        if not [*module.parameters(), *module.buffers()]:
            return self._module(node, name, module, found)
        if name in self._calls:
            earlier, made = self._calls[name]
            if earlier is not None and found is not None:
                self._unite(node, [earlier, found])
            elif (earlier or found) is not None:
                self._freeze(earlier or found or (0, ()), f"{name} also reads channels that cannot grow")
            return made
        made = self._module(node, name, module, found)
        self._calls[name] = (found, made)
        return made

    def _module(self, node: fx.Node, name: str, module: nn.Module, found: Value | None) -> Value | None:
        known = {key for key, parameter in module.named_parameters() if parameter is not None}
        if known - {"weight", "bias"}:
            return self._lost(node, f"{name} keeps its weights in a form of its own")
        if isinstance(module, nn.Linear):
            return self._linear(node, name, module, found)
        if isinstance(module, CONVOLUTIONS):
            return self._convolution(node, name, module, found)
        if isinstance(module, TRANSPOSED):
            return self._transposed(node, name, module, found)
        if isinstance(module, PER_CHANNEL) or (isinstance(module, nn.PReLU) and module.num_parameters > 1):
            if found is None or found[0] != 1:
                return self._lost(node, f"{name} is not over the channels") if found else None
            tensors = [*module.named_parameters(), *module.named_buffers()]
            self.axes += [Axis(f"{name}.{key}", 0, "rider", found[1]) for key, tensor in tensors if tensor.dim() == 1]
            return found
        if isinstance(module, nn.Flatten):
            return self._reshaped(node, found)
        if isinstance(module, nn.PReLU | nn.Softmax | nn.LogSoftmax) and found:
            mixing = isinstance(module, nn.Softmax | nn.LogSoftmax) and self._dim(node, module.dim) in (None, found[0])
            return self._lost(node, f"{name} mixes channels") if mixing else found
        if isinstance(module, self._pointwise):
            return found
        if isinstance(module, POOLS):
            return self._pooled(node, name, found)
        return self._lost(node, f"{name} ({type(module).__name__}) cannot be followed")

    def _linear(self, node: fx.Node, name: str, module: nn.Linear, found: Value | None) -> Value | None:
        last = _shape(node.all_input_nodes[0]) or ()
        if found is not None and found[0] != len(last) - 1:
            return found
        if found is not None:
            self.axes.append(Axis(f"{name}.weight", 1, "reader", found[1]))
        return len(last) - 1, self._written(name, module, module.out_features, 0)

    def _convolution(self, node: fx.Node, name: str, module: Any, found: Value | None) -> Value | None:
        groups, taken = module.groups, module.in_channels
        found = self._pooled(node, name, found)
        if groups == taken and groups > 1:
            if found is None:
                return None
            each = module.out_channels // groups
            layout = tuple(Segment(part.space, part.expansion * each) for part in found[1])
            self._ride(name, module, layout)
            return 1, layout
        if groups > 1 and found is not None:
            part = found[1][0]
            if len(found[1]) > 1:
                self._freeze(found, f"{name} reads a concatenation in groups")
            self.groups[part.space] = lcm(self.groups[part.space], groups)
        if found is not None:
            self.axes.append(Axis(f"{name}.weight", 1, "reader", found[1], groups))
        return 1, self._written(name, module, module.out_channels, 0, groups)

    def _transposed(self, node: fx.Node, name: str, module: Any, found: Value | None) -> Value | None:
        if module.groups > 1:
            return self._lost(node, f"{name} is a transposed convolution in groups")
        found = self._pooled(node, name, found)
        if found is not None:
            self.axes.append(Axis(f"{name}.weight", 0, "reader", found[1]))
        return 1, self._written(name, module, module.out_channels, 1)

    def _pooled(self, node: fx.Node, name: str, found: Value | None) -> Value | None:
        """Return the channels given to what takes them along axis 1; those along another axis are mixed by it."""
        return self._lost(node, f"{name} works across its channels") if found and found[0] != 1 else found

    def _written(self, name: str, module: Any, size: int, axis: int, groups: int = 1) -> Layout:
        """Return the layout of a new space that a module writes."""
        space = len(self.sizes)
        self.sizes.append(size)
        self.frozen.append("")
        self.groups.append(groups)
        self._parents.append(space)
        layout = (Segment(space),)
        self.axes.append(Axis(f"{name}.weight", axis, "writer", layout))
        if module.bias is not None:
            self.axes.append(Axis(f"{name}.bias", 0, "writer", layout))
        return layout

    def _ride(self, name: str, module: Any, layout: Layout) -> None:
        self.axes += [Axis(f"{name}.{key}", 0, "rider", layout) for key, _ in module.named_parameters()]

    def _function(self, node: fx.Node, name: str) -> Value | None:
        found = self._given(node)
        if name in COMBINING:
            return self._combined(node)
        if found is None or (name in ("size", "dim", "getattr") and _shape(node) is None):
            return None
        if name in ACTIVATION_NAMES:
            return found if len(node.all_input_nodes) == 1 else self._combined(node)
        if name in POOL_NAMES:
            return self._pooled(node, name, found)
        if name in REDUCING:
            return self._reduced(node, found)
        if name in RESHAPING:
            return self._reshaped(node, found)
        if name in ("cat", "concat", "concatenate"):
            return self._concatenated(node)
        if name in ("transpose", "permute"):
            return self._permuted(node, name, found)
        if name in ALONG_ONE:
            place, default = ALONG_ONE[name]
            given = node.kwargs.get("dim", node.args[place] if len(node.args) > place else default)
            across = self._dim(node, given) in (None, found[0])
            return self._lost(node, f"{name} works across its channels") if across else found
        if node.target is operator.getitem:
            return self._item(node, found)
        return self._lost(node, f"{name} cannot be followed")

    def _combined(self, node: fx.Node) -> Value | None:
        """Follow a sum or product: channels that meet become one space; a parameter of theirs rides along."""
        shape, met = _shape(node) or (), []
        for argument in node.all_input_nodes:
            value, own = self.values.get(argument), _shape(argument)
            if own is None or not own:
                continue
            met.append((argument, value, own))
        values = [value for _, value, _ in met if value is not None]
        if not values:
            return None
        axis = max(len(shape) - len(own) + value[0] for _, value, own in met if value is not None)
        kept = []
        for argument, value, own in met:
            at = axis - (len(shape) - len(own))
            wide = own[at] if at >= 0 else 1
            if value is not None and (value[0] != at or wide != shape[axis]):
                return self._lost(node, f"{node.name} meets channels of another shape")
            if value is not None:
                kept.append(value)
            elif wide == shape[axis] and wide > 1:
                tensor = str(argument.target)
                if argument.op != "get_attr" or tensor not in self._parameters:
                    return self._lost(node, f"{node.name} meets channels that cannot grow")
                self.axes.append(Axis(tensor, at, "rider", values[0][1]))
        return axis, self._unite(node, [(axis, value[1]) for value in kept])[1]

    def _concatenated(self, node: fx.Node) -> Value | None:
        parts = [self.values.get(argument) for argument in node.all_input_nodes]
        first = next(part for part in parts if part is not None)
        argument = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if any(part is None or part[0] != first[0] for part in parts):
            return self._lost(node, f"{node.name} lays channels beside some that cannot grow")
        if len(set(node.all_input_nodes)) != len(tuple(node.args[0])):  # type: ignore[arg-type]
            return self._lost(node, f"{node.name} lays channels beside themselves")
        if self._dim(node, argument) != first[0]:
            return self._unite(node, parts)
        ordered = [self.values[each] for each in node.args[0]]  # type: ignore[union-attr, index]
        return first[0], tuple(segment for part in ordered for segment in part[1])

    def _reduced(self, node: fx.Node, found: Value) -> Value | None:
        """Follow a mean or maximum over pixels; over channels it cannot be grown exactly."""
        axis, source = found[0], node.all_input_nodes[0]
        size = len(_shape(source) or ())
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        if dims is None or not isinstance(dims, int | tuple | list):
            return self._lost(node, f"{node.name} works across its channels")
        gone = {int(dim) % size for dim in ((dims,) if isinstance(dims, int) else dims)}  # type: ignore[arg-type]
        if axis in gone:
            return self._lost(node, f"{node.name} works across its channels")
        kept = bool(node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False))
        return (axis if kept else axis - sum(dim < axis for dim in gone)), found[1]

    def _reshaped(self, node: fx.Node, found: Value | None) -> Value | None:
        if found is None:
            return None
        before, after = _shape(node.all_input_nodes[0]) or (), _shape(node) or ()
        axis, layout = found
        sizes: Any = node.args[1] if isinstance(node.args[-1], tuple | list) else node.args[1:]
        at = axis if before[: axis + 1] == after[: axis + 1] else len(after) - 1
        asked = sizes[at] if _kind(node) in ("view", "reshape") and len(sizes) == len(after) else -1
        if isinstance(asked, int) and asked != -1:
            return self._lost(node, f"{node.name} names the number of its channels: write -1 there")
        if before[: axis + 1] == after[: axis + 1]:
            return found
        rest = 1
        for side in before[axis + 1 :]:
            rest *= side
        if before[:axis] == after[:axis] and len(after) == axis + 1:
            return axis, tuple(Segment(part.space, part.expansion * rest) for part in layout)
        if axis == len(before) - 1 and after[-1:] == before[-1:]:
            return len(after) - 1, layout
        return self._lost(node, f"{node.name} folds its channels into another shape")

    def _permuted(self, node: fx.Node, name: str, found: Value) -> Value | None:
        size = len(_shape(node) or ())
        order: list[Any] = list(node.args[1:])
        if name == "permute":
            order = list(order[0]) if order and isinstance(order[0], tuple | list) else order
            return [int(dim) % size for dim in order].index(found[0]), found[1]
        one, two = (int(dim) % size for dim in order)
        return {one: two, two: one}.get(found[0], found[0]), found[1]

    def _item(self, node: fx.Node, found: Value) -> Value | None:
        """Follow an index: into a tuple of results, or into axes behind the channels."""
        index: Any = node.args[1]
        if not isinstance(_shape(node.all_input_nodes[0]), tuple):
            return found if isinstance(index, int) else None
        parts = index if isinstance(index, tuple) else (index,)
        front = parts[: found[0] + 1]
        batch = found[0] > 0 and isinstance(parts[0], slice)
        whole = all(part == slice(None) for part in (front[1:] if batch else front))
        behind = all(isinstance(part, int | slice) for part in parts[found[0] + 1 :])
        return found if whole and behind else self._lost(node, f"{node.name} takes some of its channels")

    def _given(self, node: fx.Node) -> Value | None:
        return next((self.values[each] for each in node.all_input_nodes if each in self.values), None)

    def _dim(self, node: fx.Node, dim: Any) -> int | None:
        shape = _shape(node.all_input_nodes[0])
        return None if shape is None or not isinstance(dim, int) else dim % len(shape)

    def _unite(self, node: fx.Node, values: Iterable[Value | None]) -> Value:
        """Make the spaces of equal layouts one; layouts that differ freeze all of them."""
        known = [value for value in values if value is not None]
        first = known[0]
        for other in known[1:]:
            same = other[0] == first[0] and len(other[1]) == len(first[1]) and all(
                a.expansion == b.expansion and self.sizes[a.space] == self.sizes[b.space]
                for a, b in zip(first[1], other[1], strict=True)
            )  # fmt: skip
            if not same:
                for each in known:
                    self._freeze(each, f"{node.name} meets channels laid out otherwise")
                return first
            for a, b in zip(first[1], other[1], strict=True):
                one, two = sorted((self.root(a.space), self.root(b.space)))
                self._parents[two] = one
        return first

    def _lost(self, node: fx.Node, why: str) -> None:
        for argument in node.all_input_nodes:
            if argument in self.values:
                self._freeze(self.values[argument], why)

    def _freeze(self, value: Value, why: str) -> None:
        for part in value[1]:
            self.frozen[part.space] = self.frozen[part.space] or why


def _kind(node: fx.Node) -> str:
    """Return the name of a called function or method."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return str(name).rstrip("_")


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of a node's value, None where it is not one tensor."""
    found = node.meta.get("tensor_meta")
    return tuple(found.shape) if found is not None and hasattr(found, "shape") else None
