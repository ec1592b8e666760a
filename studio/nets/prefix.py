"""A network run on the same examples again and again while its later layers change: what lies before them is kept.

Layers are pruned from the input to the output, so that everything before the first writer of the next space to prune
is final. It is computed once for each batch and held, as far as memory allows; later runs begin there.
"""

__all__ = ["Prefix", "first_call"]

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from studio.nets.paths import writes_in_place
from studio.nets.spaces import Spaces

BYTES = 2**30


class Prefix:
    """Batches of examples, and the values of a network on them up to a place in its graph.

    A network that cannot be traced is run from its inputs each time, and so is one whose values take more than `limit`
    bytes. Values belong to networks that are equal up to the place: `forget` goes back to the inputs.
    """

    def __init__(self, spaces: Spaces, batches: Sequence[Tensor], limit: int = BYTES) -> None:
        self.batches, self._limit = tuple(batches), limit
        self._graph = None if spaces.traced is None else spaces.traced.graph
        self._nodes = () if self._graph is None else tuple(self._graph.graph.nodes)
        self._place = 0
        self._kept: list[dict[fx.Node, Any]] = []
        self.forget()

    @property
    def place(self) -> int:
        """Return how many nodes of the graph need not be run again."""
        return self._place

    def forget(self) -> None:
        """Go back to the inputs."""
        self._place, entrances = 0, [node for node in self._nodes if node.op == "placeholder"]
        self._kept = [dict.fromkeys(entrances[:1], batch) for batch in self.batches]

    def advance(self, network: nn.Module, place: int) -> None:
        """Run the network on every batch up to the node at `place` and keep what later nodes need."""
        if place <= self._place or self._graph is None:
            return
        later = set(self._nodes[place:])
        needed = {node for node in self._nodes[:place] if any(user in later for user in node.users)}
        moved, size = [], 0
        with torch.no_grad():
            for kept in self._kept:
                values = self._walked(network, kept, place)
                moved.append({node: value for node, value in values.items() if node in needed and _kept(node)})
                size += sum(value.nbytes for value in moved[-1].values() if isinstance(value, Tensor))
                if size > self._limit:
                    return
        self._kept, self._place = moved, place

    def run(self, network: nn.Module) -> Iterator[Tensor]:
        """Yield the network's output on each batch, run from the place where the values end."""
        for index in range(len(self.batches)):
            yield self.output(network, index)

    def output(self, network: nn.Module, index: int) -> Tensor:
        """Return the network's output on one batch; its hooks are called for every layer that is run."""
        if self._graph is None:
            return network(self.batches[index])
        values = self._walked(network, self._kept[index], len(self._nodes))
        return next(values[node] for node in reversed(self._nodes) if node.op == "output")

    def reach(self, network: nn.Module, index: int, modules: Sequence[str]) -> None:
        """Run the network on one batch as far as the last call of one of these modules, for what their hooks see."""
        if self._graph is None:
            network(self.batches[index])
            return
        wanted = set(modules)
        called = [at for at, node in enumerate(self._nodes) if node.op == "call_module" and node.target in wanted]
        self._walked(network, self._kept[index], max(called, default=len(self._nodes) - 1) + 1)

    def _walked(self, network: nn.Module, kept: dict[fx.Node, Any], place: int) -> dict[fx.Node, Any]:
        walker = fx.Interpreter(network, garbage_collect_values=False, graph=self._graph.graph)  # type: ignore[union-attr]
        written = any(writes_in_place(network, node) for node in self._nodes[self._place : place])
        walker.env = {
            node: value.clone() if written and isinstance(value, Tensor) else value for node, value in kept.items()
        }
        last = _last_uses(self._nodes, place)
        for number, node in enumerate(self._nodes[:place]):
            if node not in walker.env and (number >= self._place or node.op == "get_attr"):
                walker.env[node] = walker.run_node(node)
                for spent in last.get(node, ()):
                    walker.env.pop(spent, None)
        return walker.env


def first_call(spaces: Spaces, modules: Sequence[str]) -> int:
    """Return the place in the graph of the first call of one of these modules; 0 where there is no graph."""
    if spaces.traced is None:
        return 0
    wanted = set(modules)
    nodes = spaces.traced.graph.graph.nodes
    return next((at for at, node in enumerate(nodes) if node.op == "call_module" and node.target in wanted), 0)


def _kept(node: fx.Node) -> bool:
    """Return whether a value may be held: a parameter is read anew, as it may have been pruned since."""
    return node.op != "get_attr"


def _last_uses(nodes: Sequence[fx.Node], place: int) -> dict[fx.Node, list[fx.Node]]:
    """Return for each of the first nodes the values nobody needs after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            last[source] = node
    inside, found = set(nodes[:place]), {}
    for source, user in last.items():
        if user in inside:
            found.setdefault(user, []).append(source)
    return found
