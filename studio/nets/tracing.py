"""A network's graph, traced while other threads go on using theirs."""

__all__ = ["graph_of"]

import threading
from typing import Any

from torch import fx, nn

# torch.fx puts its own functions into the class of all modules while it traces.
_ALONE = threading.Lock()


class _Tracer(fx.Tracer):
    """Traces the modules that its own thread calls, and lets those of other threads work."""

    def __init__(self, elementwise: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._elementwise, self._thread = elementwise, threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is taken as one operation."""
        return isinstance(m, self._elementwise) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the call of a module; one of another thread is just called."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Record the use of a parameter; another thread is given the parameter."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def graph_of(network: nn.Module, elementwise: tuple[type[nn.Module], ...] = ()) -> fx.GraphModule:
    """Return the graph of a network; modules of the classes `elementwise` are one operation each.

    A graph module is its own graph, with its own parameters. What torch.fx raises for a network that it cannot trace
    comes through.
    """
    if isinstance(network, fx.GraphModule):
        return fx.GraphModule(network, network.graph)
    with _ALONE:
        return fx.GraphModule(network, _Tracer(elementwise).trace(network))
