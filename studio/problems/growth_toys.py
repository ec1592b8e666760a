"""Three functions to fit by a network that grows, small enough to see every neuron: two on a line, one of a plane."""

__all__ = ["TOYS", "GrowthToy", "growth_toy"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.core.seeds import generator_from
from studio.nets.activations import Gaussian
from studio.nets.families import draw, mlp
from studio.nets.spaces import Spaces, trace

EDGE = 5.0
COUNT = 1000
PLOT = 1001
SIDE = 41
WINDOW = 2.5
SPREAD = 3.0**0.5
UNITS = 15
TAUGHT = 6
STEEP = 2.0


@dataclass(frozen=True, eq=False)
class GrowthToy:
    """A regression in float64 whose every batch and probe is the whole training set.

    `test_inputs` are held out; `grid` and its `target` values are there to draw. Gaussian networks are radial-basis
    ones, f(x) = sum_i w_i exp(-(t_i1 x + t_i2)^2 / 2), all others a plain perceptron with a last bias.
    """

    inputs: Float[Tensor, "m f"]
    targets: Float[Tensor, "m 1"]
    test_inputs: Float[Tensor, "t f"]
    test_targets: Float[Tensor, "t 1"]
    grid: Float[Tensor, "g f"]
    target: Float[Tensor, "g 1"]
    activation: str
    start: tuple[int, ...]
    seed_parameters: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def examples(self) -> int:
        """Return how many training examples there are."""
        return len(self.inputs)

    @property
    def test_words(self) -> str:
        """Return what `accuracy` is a share of, in words."""
        return "of the held-out variance explained"

    @property
    def example(self) -> Float[Tensor, "2 f"]:
        """Return two inputs, enough to trace a network."""
        return self.inputs[:2]

    def to(self, device: torch.device) -> "GrowthToy":
        """Return the same problem on a device."""
        names = ("inputs", "targets", "test_inputs", "test_targets", "grid", "target")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def network(self, widths: Sequence[int] | None, generator: torch.Generator) -> nn.Module:
        """Return a freshly drawn network of these widths, or the seed: `start` wide, "bump" with fixed parameters."""
        chosen = self.start if widths is None else widths
        network = _drawn(self.inputs.shape[1], chosen, self.activation, generator).to(self.inputs)
        if widths is None and self.seed_parameters:
            _set(network, torch.tensor(self.seed_parameters, dtype=torch.float64))
        return network

    def spaces(self, network: nn.Module) -> Spaces:
        """Return the channel spaces of a network of this problem."""
        return trace(network, self.example, (Gaussian,))

    def batch(self, step: int) -> tuple[Float[Tensor, "m f"], Float[Tensor, "m 1"]]:
        """Return the whole training set at every step."""
        return self.inputs, self.targets

    def probe(self, index: int) -> tuple[Float[Tensor, "m f"], Float[Tensor, "m 1"]]:
        """Return the whole training set for every number: scores are exact here, so none needs a second look."""
        return self.inputs, self.targets

    def loss(self, outputs: Float[Tensor, "b 1"], targets: Float[Tensor, "b 1"]) -> Float[Tensor, ""]:
        """Return the mean squared error (not halved)."""
        return (outputs - targets).square().mean()

    def accuracy(self, network: nn.Module) -> float:
        """Return the coefficient of determination R^2 on the held-out inputs: 1 is perfect, the mean has 0."""
        with torch.no_grad():
            error = (network(self.test_inputs) - self.test_targets).square().sum()
            spread = (self.test_targets - self.test_targets.mean()).square().sum()
        return float(1 - error / spread)


def growth_toy(name: str, seed: int) -> GrowthToy:
    """Return the toy called `name`: bump, bumps or teacher. "bump" is the same for every seed.

    Raises `ValueError` where the name is unknown.
    """
    if name not in TOYS:
        raise ValueError(f"toy must be one of {', '.join(TOYS)}, got {name!r}")
    return TOYS[name](seed)


def _bump(seed: int) -> GrowthToy:
    """One bump with a dip on either side, on 1,001 points; held out are the middles between them.

    Its best single neuron is a minimum where no split into positive parts lowers the loss (Wu, Ye, Lei, Lee and Liu,
    "Steepest descent neural architecture optimization", 2021, arXiv 2003.10392, is about such points; the function is
    ours). The seed neuron, exp(-x^2 / 2), trains to that minimum: mean squared error 4.870e-3.
    """
    grid = torch.linspace(-EDGE, EDGE, PLOT, dtype=torch.float64)[:, None]
    middles = (grid[1:] + grid[:-1]) / 2

    def bump(x: Tensor) -> Tensor:
        sides = ((x - 1.2).square() / -2).exp() + ((x + 1.2).square() / -2).exp()
        return 2 * (x.square() / -2).exp() - sides / 2

    return GrowthToy(
        inputs=grid, targets=bump(grid), test_inputs=middles, test_targets=bump(middles), grid=grid, target=bump(grid),
        activation="gaussian", start=(1,), seed_parameters=(1.0, 0.0, 1.0),
    )  # fmt: skip


def _bumps(seed: int) -> GrowthToy:
    """A random radial-basis network of 15 units, after the toy of splitting steepest descent (arXiv 1910.02366).

    Its parameters are normal of variance 3, the inputs uniform in [-5, 5], and the outputs divided by their standard
    deviation; held out is an even grid.
    """
    hidden = _drawn(1, (UNITS,), "gaussian", generator_from(seed, "bumps", "target"))
    chance = generator_from(seed, "bumps", "inputs")
    inputs = EDGE * (2 * torch.rand(COUNT, 1, generator=chance, dtype=torch.float64) - 1)
    grid = torch.linspace(-EDGE, EDGE, PLOT, dtype=torch.float64)[:, None]
    with torch.no_grad():
        outputs, target = hidden(inputs), hidden(grid)
    unit = outputs.std(correction=0)
    return GrowthToy(
        inputs=inputs, targets=outputs / unit, test_inputs=grid, test_targets=target / unit, grid=grid,
        target=target / unit, activation="gaussian", start=(1,),
    )  # fmt: skip


def _teacher(seed: int) -> GrowthToy:
    """A tanh network of 6 hidden units over the plane teaches one that starts with 2.

    The six look in directions spread evenly over half a turn, from a random one on, at slope 2 and with normal biases;
    their signs alternate, so that each matters and no two can stand for all. Inputs are normal, outputs shifted and
    scaled to mean 0 and variance 1. Held out are as many fresh inputs; the grid is a square.
    """
    chance = generator_from(seed, "teacher")
    turn, biases = torch.rand(1, generator=chance, dtype=torch.float64), torch.randn(TAUGHT, generator=chance)
    angles = math.pi / TAUGHT * (torch.arange(TAUGHT) + turn)
    rows = STEEP * torch.stack([angles.cos(), angles.sin()], dim=1)
    signs = 1.0 - 2.0 * (torch.arange(TAUGHT) % 2)
    teacher = mlp(2, (TAUGHT,), 1, "tanh").double()
    values = torch.cat([rows.flatten(), biases.double(), signs.double(), torch.zeros(1, dtype=torch.float64)])
    _set(teacher, values)
    inputs, test = torch.randn(2, COUNT, 2, generator=chance, dtype=torch.float64)
    axis = torch.linspace(-WINDOW, WINDOW, SIDE, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        unit, mean = torch.std_mean(teacher(inputs), correction=0)
        outputs, tested, target = ((teacher(points) - mean) / unit for points in (inputs, test, grid))
    return GrowthToy(
        inputs=inputs, targets=outputs, test_inputs=test, test_targets=tested, grid=grid, target=target,
        activation="tanh", start=(2,),
    )  # fmt: skip


def _drawn(inputs: int, widths: Sequence[int], activation: str, generator: torch.Generator) -> nn.Module:
    """Return a float64 network; in a Gaussian one all parameters are normal of variance 3, so that bumps lie apart."""
    radial = activation == "gaussian"
    network = mlp(inputs, widths, 1, activation, last_bias=not radial).double()
    if not radial:
        return draw(network, generator)
    count = sum(parameter.numel() for parameter in network.parameters())
    _set(network, SPREAD * torch.randn(count, generator=generator, dtype=torch.float64))
    return network


def _set(network: nn.Module, values: Float[Tensor, " p"]) -> None:
    """Copy values into a network's parameters, one after the other."""
    parameters = list(network.parameters())
    with torch.no_grad():
        for parameter, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


TOYS: dict[str, Callable[[int], GrowthToy]] = {"bump": _bump, "bumps": _bumps, "teacher": _teacher}
