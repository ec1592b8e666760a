"""Channel spaces: which axes of which tensors of a network must grow and shrink together, found by tracing it.

A space is a set of channels. Layers write it (rows of a weight), others ride on it (batch norm, depthwise filters) and
others read it (columns of a weight). Adding two tensors makes their spaces one; a concatenation lays several side by
side; a flattening gives every channel as many entries as it had pixels. What cannot be followed freezes the spaces it
touches, with the name of the operation: such a network still works, and grows elsewhere.
"""

__all__ = ["Axis", "Segment", "Space", "Spaces", "Traced", "declared", "trace"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from studio.nets.modes import evaluating
from studio.nets.tracing import graph_of


@dataclass(frozen=True)
class Segment:
    """A run of entries along an axis: all channels of one space, each with `expansion` entries in a row."""

    space: int
    expansion: int = 1


@dataclass(frozen=True)
class Axis:
    """One axis of one tensor and the channels along it.

    `tensor` is the dotted name of a parameter or buffer; `role` is writer, rider or reader; a reader with `groups`
    above 1 has the channels of one group along its axis, another group for each block of its rows.
    """

    tensor: str
    axis: int
    role: str
    layout: tuple[Segment, ...]
    groups: int = 1

    @property
    def module(self) -> str:
        """Return the dotted name of the module that holds the tensor."""
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True)
class Space:
    """A set of channels that belong together.

    `writers` are the modules that make them. `frozen` says why their number cannot change, `whole` why they cannot be
    split one by one (they can still be copied, all writers together); both are empty where all is well. The channels
    lie in `groups` equal blocks, and each block must grow by as many channels as the others. `summed`: the channels are
    whole only because several layers add to them, so that a copy may still move in the rows of the first one.
    """

    name: str
    size: int
    writers: tuple[str, ...]
    frozen: str = ""
    whole: str = ""
    groups: int = 1
    summed: bool = False

    @property
    def growable(self) -> bool:
        """Return whether channels can be added and removed without changing what the rest of the network is."""
        return not self.frozen

    @property
    def splittable(self) -> bool:
        """Return whether a channel is the output of one neuron, which can be split."""
        return not self.frozen and not self.whole

    @property
    def movable(self) -> bool:
        """Return whether copies of a channel may differ, and new ones be added, in the rows of the first writer."""
        return self.splittable or (self.summed and not self.frozen)


@dataclass(frozen=True, eq=False)
class Traced:
    """The graph behind the spaces: the channels along an axis of every node's value, and how big the values are."""

    graph: fx.GraphModule
    values: dict[fx.Node, tuple[int, tuple[Segment, ...]]]


@dataclass(frozen=True, eq=False)
class Spaces:
    """All channel spaces of a network, the axes they lie along, and the traced graph where there is one."""

    spaces: tuple[Space, ...]
    axes: tuple[Axis, ...]
    traced: Traced | None = None

    def __len__(self) -> int:
        return len(self.spaces)

    def __getitem__(self, index: int) -> Space:
        return self.spaces[index]

    @property
    def growable(self) -> tuple[int, ...]:
        """Return the places of the spaces whose size may change."""
        return tuple(index for index, space in enumerate(self.spaces) if space.growable)

    @property
    def splittable(self) -> tuple[int, ...]:
        """Return the places of the spaces whose channels are single neurons."""
        return tuple(index for index, space in enumerate(self.spaces) if space.splittable)

    @property
    def movable(self) -> tuple[int, ...]:
        """Return the places of the spaces to which single neurons can be added."""
        return tuple(index for index, space in enumerate(self.spaces) if space.movable)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the sizes of the growable spaces, in the order in which the network writes them."""
        return tuple(self.spaces[index].size for index in self.growable)

    def named(self, name: str) -> int:
        """Return the place of the space called `name` (after its first writer); a `ValueError` lists the known ones."""
        for index, space in enumerate(self.spaces):
            if space.name == name:
                return index
        known = ", ".join(space.name for space in self.spaces)
        raise ValueError(f"no channel space is called {name!r}; there are {known}")

    def along(self, space: int, role: str = "") -> tuple[Axis, ...]:
        """Return the axes on which a space lies, of one role or of all."""
        return tuple(
            axis for axis in self.axes if role in ("", axis.role) and any(part.space == space for part in axis.layout)
        )


def trace(network: nn.Module, example: Tensor, elementwise: tuple[type[nn.Module], ...] = ()) -> Spaces:
    """Return the channel spaces of a network that `torch.fx` can trace; `example` is a batch of two inputs or more.

    Modules of the classes `elementwise` are taken as one operation that acts on each channel by itself (the probe in
    `probes` finds those that do not). The network is run once, in evaluation mode, and left as it was. Raises
    `ValueError` where it cannot be traced: declare its spaces by hand then, with `declared`.
    """
    from studio.nets.space_rules import Follower

    with evaluating(network):
        graph = _graph(network, elementwise)
        with torch.no_grad():
            ShapeProp(graph).propagate(example)
        follower = Follower(graph, elementwise)
        follower.follow()
    return _settled(network, graph, follower)


def declared(network: nn.Module, axes: Sequence[Axis], sizes: Sequence[int]) -> Spaces:
    """Return spaces declared by hand, for a network that tracing cannot follow.

    `sizes` are the numbers of channels of each space, `axes` all axes they lie along. Raises `ValueError` where a
    tensor is not there or its size does not fit. Whether channels stay apart is for the probe to find.
    """
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    for axis in axes:
        if axis.tensor not in tensors:
            raise ValueError(f"axes name the tensor {axis.tensor!r}, which the network has not: check its state_dict()")
        found = tensors[axis.tensor].shape[axis.axis]
        wanted = sum(sizes[part.space] * part.expansion for part in axis.layout) // axis.groups
        if found != wanted:
            raise ValueError(
                f"{axis.tensor} has {found} entries along axis {axis.axis}, its layout {wanted}: correct it"
            )
    spaces = []
    for index, size in enumerate(sizes):
        own = [axis for axis in axes if any(part.space == index for part in axis.layout)]
        writers = tuple(dict.fromkeys(axis.module for axis in own if axis.role == "writer"))
        if not writers or not any(axis.role == "reader" for axis in own):
            raise ValueError(f"axes must give space {index} a writer and a reader: add the missing one")
        blocks = max((axis.groups for axis in own), default=1)
        spaces.append(Space(writers[0], size, writers, "", _several(writers), blocks, len(writers) > 1))
    return Spaces(tuple(spaces), tuple(axes))


def _graph(network: nn.Module, elementwise: tuple[type[nn.Module], ...]) -> fx.GraphModule:
    try:
        return graph_of(network, elementwise)
    except Exception as error:
        raise ValueError(
            f"this network cannot be traced ({type(error).__name__}: {str(error)[:200]}): replace what depends on the "
            "data, or declare its channel spaces by hand"
        ) from error


def _several(writers: Sequence[str]) -> str:
    if len(writers) < 2:
        return ""
    return f"its channels are sums over {', '.join(writers)}: only whole channels of all of them can be copied"


def _settled(network: nn.Module, graph: fx.GraphModule, follower: "Follower") -> Spaces:  # type: ignore[name-defined]
    """Return what the follower found with united spaces numbered in the order they are written."""
    roots = sorted({follower.root(index) for index in range(len(follower.sizes))})
    number = {root: place for place, root in enumerate(roots)}

    def layout(parts: tuple[Segment, ...]) -> tuple[Segment, ...]:
        return tuple(Segment(number[follower.root(part.space)], part.expansion) for part in parts)

    axes = tuple(dict.fromkeys(replace(axis, layout=layout(axis.layout)) for axis in follower.axes))
    tied = _tied(network)
    places = [(axis.tensor, axis.axis) for axis in axes]
    tied |= {axis.tensor for axis in axes if places.count((axis.tensor, axis.axis)) > 1}
    tied |= {axis.tensor for axis in axes if axis.tensor in follower.fetched and axis.role != "rider"}
    spaces = []
    for root in roots:
        members = [index for index in range(len(follower.sizes)) if follower.root(index) == root]
        size = follower.sizes[root]
        own = [axis for axis in axes if any(part.space == number[root] for part in axis.layout)]
        writers = tuple(dict.fromkeys(axis.module for axis in own if axis.role == "writer"))
        groups = lcm(*(follower.groups[index] for index in members))
        frozen = next((follower.frozen[index] for index in members if follower.frozen[index]), "")
        shared = [axis.tensor for axis in own if axis.tensor in tied]
        if not frozen and shared:
            frozen = f"{shared[0]} is shared with another layer"
        if not frozen and not any(axis.role == "reader" for axis in own):
            frozen = "nothing reads its channels"
        if not frozen and size % groups:
            frozen = f"its {size} channels do not fall into {groups} equal groups"
        transposed = any(axis.role == "writer" and axis.axis and axis.tensor.endswith("weight") for axis in own)
        whole = _several(writers) or ("it is written by a transposed convolution" if transposed else "")
        summed = len(writers) > 1 and not transposed
        spaces.append(Space(writers[0] if writers else "", size, writers, frozen, whole, groups, summed))
    values = {node: (axis, layout(parts)) for node, (axis, parts) in follower.values.items()}
    return Spaces(tuple(spaces), axes, Traced(graph, values))


def _tied(network: nn.Module) -> set[str]:
    """Return the names of the parameters that occur under more than one name."""
    by_id: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(parameter), []).append(name)
    return {name for names in by_id.values() if len(names) > 1 for name in names}
