"""Activations by name, each a plain module that a tracer sees as one node."""

__all__ = ["ACTIVATIONS", "SMOOTH", "Gaussian"]

from collections.abc import Callable

from torch import Tensor, fx, nn


class Gaussian(nn.Module):
    """The bump exp(-z^2 / 2), the unit of a radial-basis network."""

    def forward(self, inputs: Tensor | fx.Proxy) -> Tensor | fx.Proxy:
        """Return the bump of every value (a tracer may pass its proxy)."""
        return inputs.square().mul(-0.5).exp()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
    "gaussian": Gaussian,
}
# Those with a second derivative everywhere, which a splitting matrix needs.
SMOOTH = tuple(name for name in ACTIVATIONS if name != "relu")
