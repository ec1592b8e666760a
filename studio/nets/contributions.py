"""What each channel of a space adds to the layers that read it, as a Gram matrix, and networks with gated channels.

A channel's contribution is the part of its readers' outputs that comes from it alone; times the number of channels, so
that the layer's output is their mean (the normalisation of Ye, Wu and Liu, arXiv 2010.15969). A gate multiplies what
the readers are given, behind batch norms, activations and depthwise filters, and so can be folded into their columns.
Nothing of size channels times outputs is kept: for a reader with patches x and weights W,

    <phi_i, phi_j> = N^2 sum_kl (XᵀX)_{ik,jl} (WᵀW)_{ik,jl}

summed over examples in float64, at positions drawn for each example where the reader has more of them.
"""

__all__ = ["Contributions", "Wanted", "contributions", "gated", "reader_names", "sampled"]

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.nets.modes import evaluating
from studio.nets.prefix import Prefix
from studio.nets.spaces import Axis, Spaces

CHUNK = 2**26  # entries of a block of contributions
SLOWER = 3  # times, measured, that a product costs which passes through such blocks
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class Contributions:
    """The Gram matrix of a space's contributions, in float64 on the CPU.

    Vertices are channels, or one channel of each group together: `members` (n, groups) are the channels of each.
    `cross` are their products with the difference between the original readers' outputs and these (zeros where no
    original was given), `excess` the square of it. `energy` is the square of the layer's own output, and `values` the
    number of output values summed over.
    """

    members: Int[Tensor, "n groups"]
    gram: Float[Tensor, "n n"]
    cross: Float[Tensor, " n"]
    excess: float
    energy: float
    values: int


@dataclass(frozen=True, eq=False)
class Wanted:
    """A network whose readers' outputs are to be imitated, with its own prefix over the same examples.

    `kept` are the channels that are left of those spaces that were pruned since, in their order.
    """

    network: nn.Module
    prefix: Prefix
    kept: Mapping[int, Tensor]

    def seen(self, spaces: Spaces, readers: Sequence[Axis], index: int) -> list[list[Tensor]]:
        """Return what each reader made of a batch, call by call: the channels that are left of it."""
        found = []
        for axis, calls in zip(readers, _seen(self.network, readers, self.prefix, index), strict=True):
            places = self._rows(spaces, axis.module)
            module = self.network.get_submodule(axis.module)
            found.append([
                made if places is None else made.index_select(_channel_axis(module, made), places.to(made.device))
                for _, made in calls
            ])  # fmt: skip
        return found

    def _rows(self, spaces: Spaces, module: str) -> Tensor | None:
        """Return which outputs of a layer are left, None for all."""
        for axis in spaces.axes:
            if axis.role == "writer" and axis.module == module and axis.tensor.endswith("weight"):
                return self.kept.get(axis.layout[0].space)
        return None


def contributions(
    network: nn.Module, spaces: Spaces, space: int, prefix: Prefix, positions: int, generator: torch.Generator,
    original: Wanted | None = None,
) -> Contributions:  # fmt: skip
    """Return the Gram matrix of a space over the examples of a prefix.

    At most `positions` places of each example and reader are taken. `original` is what to imitate where it is not this
    network. Raises `ValueError` where nothing reads the space.
    """
    readers = spaces.along(space, "reader")
    if not readers:
        raise ValueError(f"space {spaces[space].name} has no readers: there is nothing to imitate")
    size = spaces[space].size
    device = prefix.batches[0].device
    gram, cross = (torch.zeros(*shape, dtype=torch.float64, device=device) for shape in ((size, size), (size,)))
    excess, values = 0.0, 0
    with torch.no_grad(), evaluating(network), ExitStack() as stack:
        if original is not None:
            stack.enter_context(evaluating(original.network))
        for index in range(len(prefix.batches)):
            seen = _seen(network, readers, prefix, index)
            wanted = (
                [[None] * len(calls) for calls in seen] if original is None else original.seen(spaces, readers, index)
            )
            for axis, calls, aims in zip(readers, seen, wanted, strict=True):
                module = network.get_submodule(axis.module)
                part = _Part(module, axis, spaces, space)
                for (given, made), aim in zip(calls, aims, strict=True):
                    places = _places(made, isinstance(module, nn.Linear), positions, generator)
                    off = None if aim is None else _taken(aim - made, isinstance(module, nn.Linear), places).double()
                    gram += part.products(given, places)
                    values += len(places[0]) * part.outputs
                    if off is not None:
                        cross += part.along(given, places, off)
                        excess += float(off.square().sum())
    groups = _members(spaces, space, gram)
    own = gram[groups[:, None, :, None], groups[None, :, None, :]].sum(dim=(2, 3)) * len(groups) ** 2
    aside = cross[groups].sum(dim=1) * len(groups)
    return Contributions(groups.cpu(), own.cpu(), aside.cpu(), excess, float(own.mean()), values)


def _members(spaces: Spaces, space: int, gram: Tensor) -> Tensor:
    """Return which channels stand or fall together, (n, groups): where readers work in groups, one of each.

    Channels of equal rank by their squared contribution are put together, so that every group keeps as many.
    """
    groups = spaces[space].groups
    block = spaces[space].size // groups
    if groups == 1:
        return torch.arange(block, device=gram.device)[:, None]
    order = gram.diagonal().view(groups, block).argsort(dim=1, descending=True, stable=True)
    return (order + block * torch.arange(groups, device=gram.device)[:, None]).T.contiguous()


def reader_names(spaces: Spaces, space: int) -> tuple[str, ...]:
    """Return the modules that read a space."""
    return tuple(dict.fromkeys(axis.module for axis in spaces.along(space, "reader")))


@contextmanager
def gated(network: nn.Module, spaces: Spaces, gates: dict[int, Tensor]) -> Iterator[None]:
    """Multiply the channels of some spaces, as their readers are given them, by gates (a number a channel).

    The gates may be differentiated. The network with gates N a computes what it will when it is pruned with weights a.
    """
    handles = []
    for axis in spaces.axes:
        if axis.role == "reader" and any(part.space in gates for part in axis.layout):
            factors = partial(_gate, spaces=spaces, axis=axis, gates=gates)
            handles.append(network.get_submodule(axis.module).register_forward_pre_hook(factors))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gate(
    module: nn.Module, given: tuple[Tensor, ...], spaces: Spaces, axis: Axis, gates: dict[int, Tensor]
) -> tuple[Tensor, ...]:
    x = given[0]
    factors = torch.cat([
        gates.get(part.space, x.new_ones(spaces[part.space].size)).to(x).repeat_interleave(part.expansion)
        for part in axis.layout
    ])  # fmt: skip
    shape = [-1 if side == _channel_axis(module, x) else 1 for side in range(x.dim())]
    return (x * factors.view(shape), *given[1:])


def _channel_axis(module: nn.Module, x: Tensor) -> int:
    return x.dim() - 1 if isinstance(module, nn.Linear) else 1


def _seen(network: nn.Module, readers: Sequence[Axis], prefix: Prefix, index: int) -> list[list[tuple[Any, Any]]]:
    """Return what each reader is given and what it makes of it, call by call."""
    seen: list[list[tuple[Any, Any]]] = [[] for _ in readers]

    def note(place: int, _: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        seen[place].append((given[0].clone(), made.clone()))

    handles = [
        network.get_submodule(axis.module).register_forward_hook(partial(note, place))
        for place, axis in enumerate(readers)
    ]
    try:
        prefix.reach(network, index, [axis.module for axis in readers])
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _places(made: Tensor, linear: bool, positions: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return example and position of the output values to take: all positions, or so many of each example at random."""
    sides = made.shape[1:-1] if linear else made.shape[2:]
    count = int(torch.tensor(sides, dtype=torch.int64).prod()) if len(sides) else 1
    if count <= positions:
        flat = torch.arange(count).repeat(len(made))
    else:
        flat = torch.randint(count, (len(made) * positions,), generator=generator)
    example = torch.arange(len(made)).repeat_interleave(len(flat) // len(made))
    spots = torch.unravel_index(flat, tuple(sides)) if len(sides) else ()
    return tuple(part.to(made.device) for part in (example, *spots))


def _taken(values: Tensor, linear: bool, places: tuple[Tensor, ...]) -> Tensor:
    """Return the output values (rows, outputs) at some places."""
    return values[places] if linear else values.movedim(1, -1)[places]


def patches(module: nn.Module, given: Tensor, places: tuple[Tensor, ...], channels: int) -> Tensor:
    """Return what a linear layer or convolution multiplies at some places: (rows, channels, entries), in float64."""
    if isinstance(module, nn.Linear):
        return given[places].reshape(len(places[0]), channels, -1).double()
    layer: Any = module
    around = list(layer._reversed_padding_repeated_twice)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    windows = F.pad(given, around, mode=mode) if any(around) else given
    sides = windows.dim() - 2
    for side in range(sides):
        reach = layer.dilation[side] * (layer.kernel_size[side] - 1) + 1
        windows = windows.unfold(2 + side, reach, layer.stride[side])
    steps = tuple(slice(None, None, step) for step in layer.dilation)
    windows = windows[(..., *steps)].movedim(1, 1 + sides)
    return windows[places].reshape(len(places[0]), channels, -1).double()


def sampled(
    network: nn.Module, spaces: Spaces, space: int, prefix: Prefix, positions: int, generator: torch.Generator,
    wanted: Wanted,
) -> Iterator[tuple[str, Tensor, Tensor]]:  # fmt: skip
    """Yield, batch by batch and call by call, a reader's name, its patches (rows, inputs) and what its outputs lack.

    What they lack (rows, outputs) is the difference to the wanted network's. Transposed convolutions are left out.
    """
    readers = spaces.along(space, "reader")
    for index in range(len(prefix.batches)):
        with torch.no_grad(), evaluating(network), evaluating(wanted.network):
            seen, aims = _seen(network, readers, prefix, index), wanted.seen(spaces, readers, index)
        for axis, calls, own in zip(readers, seen, aims, strict=True):
            module = network.get_submodule(axis.module)
            linear = isinstance(module, nn.Linear)
            if isinstance(module, TRANSPOSED):
                continue
            for (given, made), aim in zip(calls, own, strict=True):
                places = _places(made, linear, positions, generator)
                channels = given.shape[_channel_axis(module, given)]
                found = patches(module, given, places, channels).flatten(1)
                yield axis.module, found, _taken(aim - made, linear, places).double()


class _Part:
    """One reader of a space: its weights for the space's channels, and what it sees of them."""

    def __init__(self, module: nn.Module, axis: Axis, spaces: Spaces, space: int) -> None:
        self.module, self.linear = module, isinstance(module, nn.Linear)
        self.size = spaces[space].size
        start = 0
        for part in axis.layout:
            if part.space == space:
                self.each, self.start = part.expansion, start
            start += spaces[part.space].size * part.expansion
        self.groups = axis.groups
        weight: Tensor = module.weight  # type: ignore[assignment]
        self.outputs = weight.shape[1] if isinstance(module, TRANSPOSED) else weight.shape[0]
        self.weight = weight.detach()

    def products(self, given: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """Return the Gram matrix (n, n) over the rows at some places, in float64."""
        if isinstance(self.module, TRANSPOSED):
            found = self._transposed(given, places)
            return found @ found.T
        patches = self._patches(given, places)
        blocks = [self._block(x, w) for x, w in zip(self._split(patches), self._weights(), strict=True)]
        return torch.block_diag(*blocks) if len(blocks) > 1 else blocks[0]

    def along(self, given: Tensor, places: tuple[Tensor, ...], off: Tensor) -> Tensor:
        """Return each channel's product (n,) with a difference (rows, outputs) of outputs, in float64."""
        if isinstance(self.module, TRANSPOSED):
            return self._transposed(given, places) @ off.T.flatten()
        parts = off.chunk(self.groups, dim=1)
        return torch.cat([
            (x * torch.einsum("ro,ock->rck", own, w)).sum(dim=(0, 2))
            for x, w, own in zip(self._split(self._patches(given, places)), self._weights(), parts, strict=True)
        ])  # fmt: skip

    def _split(self, patches: Tensor) -> tuple[Tensor, ...]:
        return patches.chunk(self.groups, dim=1)

    def _weights(self) -> list[Tensor]:
        """Return the weights of each group as (outputs, channels, entries)."""
        if self.groups > 1:
            return [block.flatten(2).double() for block in self.weight.chunk(self.groups)]
        own = self.weight[:, self.start : self.start + self.size * self.each]
        return [own.reshape(self.outputs, self.size, -1).double()]

    def _patches(self, given: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """Return what the reader multiplies at some places: (rows, channels, entries), in float64."""
        own = slice(self.start, self.start + self.size * self.each)
        return patches(self.module, given[..., own] if self.linear else given[:, own], places, self.size)

    def _block(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the Gram matrix of channels with patches (r, c, k) and weights (o, c, k), the cheaper way."""
        rows, channels, entries = x.shape
        wide = channels * entries
        if wide * wide * (rows + len(w)) <= SLOWER * rows * len(w) * (wide + channels * channels):
            first, second = x.flatten(1), w.flatten(1)
            moments = (first.T @ first).mul_(second.T @ second)
            return moments.view(channels, entries, channels, entries).sum(dim=(1, 3))
        found = x.new_zeros(channels, channels)
        step = max(1, CHUNK // (channels * len(w)))
        for part in x.split(step):
            own = torch.einsum("rck,ock->cro", part, w).flatten(1)
            found += own @ own.T
        return found

    def _transposed(self, given: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """Return the contributions (n, rows * outputs) of a transposed convolution, each channel in a group alone."""
        module: Any = self.module
        x = given[:, self.start : self.start + self.size].double()
        weight = self.weight[self.start : self.start + self.size].double()
        call = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.dim() - 3]
        made = call(
            x, weight, None, module.stride, module.padding, module.output_padding, self.size, module.dilation
        )  # fmt: skip
        return _taken(made, False, places).T.reshape(self.size, self.outputs, -1).flatten(1)
