"""A stranger's network tried out: first without memory, to see what it would need, and only then on two examples."""

__all__ = ["ENTRY_LIMIT", "TOTAL_LIMIT", "WORK_LIMIT", "trial"]

import copy
import math
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from studio.nets.architecture import beginning
from studio.nets.modes import evaluating
from studio.nets.tracing import graph_of

ENTRY_LIMIT = 64_000_000
TOTAL_LIMIT = 8 * ENTRY_LIMIT
WORK_LIMIT = 100_000_000_000
PIECE_LIMIT = 20_000
NUMBER_LIMIT = 2**40
ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow,
              operator.iadd, operator.isub, operator.imul, operator.itruediv)  # fmt: skip


def trial(network: nn.Module, example: Tensor, classes: int | None = None) -> Tensor:
    """Return what a network makes of the first two of some examples, (2, classes), or raise `ValueError` in a sentence.

    `example` is a batch, (n, ...), in the network's number type and on its device; a single one is taken twice. Before
    it is really run, the network is run on the device "meta", where tensors have shapes but no contents, with two and
    with three examples: no value may have more than `ENTRY_LIMIT` entries, all together `TOTAL_LIMIT`, one pass may
    take `WORK_LIMIT` multiply-accumulates, and no value may grow faster than the batch. Without `classes` any number
    of them will do. The network's modes and weights stay as they are.
    """
    if example.dim() < 2 or len(example) == 0:
        raise ValueError(f"example must be a batch, (n, ...), got the shape {tuple(example.shape)}: add an axis")
    two = torch.cat([example, example])[:2] if len(example) == 1 else example[:2].clone()
    ghost = _ghost(network)
    shape, pair = _measured(ghost, two, 2)
    if len(shape) != 2 or shape[0] != 2 or shape[1] < 1 or (classes is not None and shape[1] != classes):
        wanted = "classes" if classes is None else classes
        raise ValueError(f"the network makes {_cut(shape)} of two examples: its output must be (2, {wanted})")
    wider, triple = _measured(ghost, two, 3)
    if wider != (3, shape[1]):
        raise ValueError("the network works for batches of two only: let it leave the batch's size open")
    for name, entries in pair.items():
        if 2 * triple[name] > 3 * entries:
            raise ValueError(
                f"the network's value {_cut(name)} grows faster than the batch: compute each example by itself"
            )
    return _run(network, two, shape)


def _run(network: nn.Module, two: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        with torch.no_grad(), evaluating(network):
            output = network(two)
    except Exception as error:
        raise ValueError(f"the network cannot be run ({beginning(error)}): check its layers") from error
    if not isinstance(output, Tensor) or tuple(output.shape) != shape:
        raise ValueError("the network's output depends on more than its layers: save it again")
    if not bool(output.isfinite().all()):
        raise ValueError("the network's output has NaN or infinite entries: train it with a smaller step")
    return output


def _ghost(network: nn.Module) -> fx.GraphModule:
    """Return a copy of the network without contents, as a graph; the weights themselves are not copied."""
    parts = {id(part): part for part in (*network.parameters(), *network.buffers())}
    memo: dict[int, Any] = {}
    for key, part in parts.items():
        empty = torch.empty_like(part, device="meta")
        memo[key] = nn.Parameter(empty, requires_grad=False) if isinstance(part, nn.Parameter) else empty
    ghost = copy.deepcopy(network, memo).eval()
    try:
        return ghost if isinstance(ghost, fx.GraphModule) else graph_of(ghost)
    except (TraceError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ValueError("the network cannot be followed, as its way depends on its data: save a plain one") from error


def _measured(ghost: fx.GraphModule, two: Tensor, count: int) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return the shape of the output for `count` examples, and the entries of every value on the way."""
    watch = _Watch(ghost)
    with torch.no_grad():
        output = watch.run(torch.empty((count, *two.shape[1:]), dtype=two.dtype, device="meta"))
    if not isinstance(output, Tensor):
        raise ValueError("the network's output is no tensor: let it give one row of numbers an example")
    return tuple(output.shape), watch.entries


class _Watch(fx.Interpreter):
    """Runs a graph node by node, and stops it before one that would take too much."""

    def __init__(self, ghost: fx.GraphModule):
        super().__init__(ghost)
        self.extra_traceback = False
        self.entries: dict[str, int] = {}
        self.total = self.work = self.pieces = 0

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        given = next((part for part in (*args, *kwargs.values()) if isinstance(part, Tensor)), None)
        _before(n, args)
        self.pieces += _pieces(n, given, args, kwargs)
        if self.pieces > PIECE_LIMIT:
            raise ValueError(f"the network is cut into too many pieces at {_cut(n.name)}: use fewer")
        try:
            value = super().run_node(n)
        except Exception as error:
            raise ValueError(
                f"the network cannot be run at {_cut(n.name)} ({beginning(error)}): check its layers"
            ) from error
        self.entries[n.name] = entries = _entries(value)
        self.work += _work(n, module, given, args, kwargs, value)
        if max(entries, _inner(module, given, value)) > ENTRY_LIMIT:
            raise ValueError(
                f"the network needs more than {ENTRY_LIMIT // 10**6} million entries at {_cut(n.name)}: make it smaller"
            )
        self.total += entries
        if self.total > TOTAL_LIMIT:
            raise ValueError(f"the network needs more than {TOTAL_LIMIT // 10**6} million entries: make it smaller")
        if self.work > WORK_LIMIT:
            raise ValueError(f"the network takes more than {WORK_LIMIT // 10**9} billion products: make it smaller")
        return value


def _before(node: fx.Node, args: tuple[Any, ...]) -> None:
    """Raise `ValueError` where Python itself, and not a tensor, would make something huge of a node's arguments."""
    if node.target in ARITHMETIC and not any(isinstance(part, Tensor) for part in args):
        numbers = all(isinstance(part, int | float) for part in args) and node.target is not operator.pow
        tuples = all(isinstance(part, tuple) and len(part) <= 8 for part in args) and node.target is operator.add
        if not numbers and not tuples:
            raise ValueError(f"the network computes without tensors at {_cut(node.name)}: leave that out")


def _pieces(node: fx.Node, given: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many tensors a split or a chunk can make at most; what torch would refuse anyway makes none."""
    name = getattr(node.target, "__name__", node.target)
    if name not in ("split", "chunk") or given is None:
        return 0
    keys = ("chunks", "split_size", "split_size_or_sections")
    size = next(iter([*args[1:2], *(kwargs[key] for key in keys if key in kwargs)]), None)
    if isinstance(size, tuple):
        return len(size)
    if not isinstance(size, int) or size < 1:
        return 0
    longest = max(given.shape, default=0)
    return min(longest, size) if name == "chunk" else longest // size


def _entries(value: Any) -> int:
    """Return how many entries a value has in all its tensors."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, tuple | list):
        return sum(_entries(part) for part in value)
    if isinstance(value, int | float) and not abs(value) <= NUMBER_LIMIT:
        raise ValueError("the network computes with a number beyond all bounds: leave that out")
    return 0


def _inner(module: nn.Module | None, given: Tensor | None, value: Any) -> int:
    """Return the entries a convolution needs for itself: its padded input, or a fourth of its patches side by side."""
    if not isinstance(module, _ConvNd) or given is None:
        return 0
    sides = list(given.shape)
    if module.padding_mode != "zeros":
        pads = module._reversed_padding_repeated_twice
        for place in range(len(pads) // 2):
            sides[-1 - place] += pads[2 * place] + pads[2 * place + 1]
    turned = isinstance(module, _ConvTransposeNd)
    read = given.numel() // module.in_channels if turned else value.numel() // module.out_channels
    return max(math.prod(sides), read * module.weight[0].numel() * module.groups // 4)


def _work(
    node: fx.Node,
    module: nn.Module | None,
    given: Tensor | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    value: Any,
) -> int:
    """Return the multiply-accumulates, or comparisons, of a node; those of activations are not counted."""
    made = _entries(value)
    if isinstance(module, _ConvNd):
        turned = isinstance(module, _ConvTransposeNd)
        return (_entries(given) if turned else made) * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return made * module.in_features
    if node.target is torch.matmul:
        return made * max(given.shape[-1:], default=1) if given is not None else made
    name = type(module).__name__ if module is not None else str(getattr(node.target, "__name__", ""))
    size = getattr(module, "kernel_size", None) or kwargs.get("kernel_size", args[1] if len(args) > 1 else 1)
    if "adaptive" in name.lower() or "pool" not in name.lower():
        return made
    sides = [side for side in (size if isinstance(size, tuple | list) else (size,)) if isinstance(side, int)]
    dims = next((int(mark) for mark in name if mark.isdigit()), 1)
    return made * (math.prod(sides) if len(sides) > 1 else (sides or [1])[0] ** dims)


def _cut(value: Any) -> str:
    return str(value)[:40]
