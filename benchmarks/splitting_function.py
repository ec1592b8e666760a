"""Do copies at step size 0 leave the function alone? Two hundred random networks, every space of them split at once."""

__all__ = ["function", "random_network", "signed_copies"]

import copy

import torch
from torch import Tensor, nn

from studio.core.seeds import generator_from
from studio.nets.probes import probed
from studio.nets.spaces import Spaces, trace
from studio.nets.surgery import Change, widen, widened

NETWORKS = 200
SIDE = 8
BOUND = 3.0
ACTIVATIONS = (nn.SiLU, nn.GELU, nn.Tanh, nn.Softplus, nn.ReLU)


def function(networks: int = NETWORKS) -> dict[str, object]:
    """Return the largest change of any output, relative to the largest output, in both precisions and both modes."""
    torch.set_num_threads(1)
    worst = {"": 0.0, "_float32": 0.0, "_training_mode": 0.0}
    rounding = 0.0
    spaces, copies, kinds = 0, 0, dict.fromkeys(("grouped", "depthwise", "residual", "concat", "norm", "flatten"), 0)
    for seed in range(networks):
        generator = generator_from(seed, "function")
        network = random_network(generator)
        inputs = torch.randn(4, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
        found = probed(network, trace(network, inputs), inputs)
        changes = signed_copies(found, generator)
        spaces, copies = spaces + len(changes), copies + sum(len(change.src) for change in changes.values())
        for kind in kinds:
            kinds[kind] += kind in network.kinds
        worst[""] = max(worst[""], _change(network, found, changes, inputs))
        worst["_training_mode"] = max(worst["_training_mode"], _change(network, found, changes, inputs, True))
        single = _change(copy.deepcopy(network).float(), found, changes, inputs.float())
        worst["_float32"] = max(worst["_float32"], single)
        rounding = max(rounding, _rounding(network, inputs))
    print(f"  {networks} networks, {spaces} spaces: {worst}", flush=True)
    return {
        "networks_checked": networks,
        "spaces_split": spaces,
        "channels_after": copies,
        **{f"networks_with_{kind}": count for kind, count in kinds.items()},
        "coefficients_absolute_sum": BOUND,
        "float32_rounding_unsplit": float(f"{rounding:.2g}"),
        **{f"max_function_change{name}": float(f"{value:.2g}") for name, value in worst.items()},
    }


@torch.no_grad()
def _change(
    network: nn.Module, spaces: Spaces, changes: dict[int, Change], inputs: Tensor, training: bool = False
) -> float:
    grown, _ = widened(network, spaces, changes)
    before, after = (copy.deepcopy(each).train(training)(inputs) for each in (network, grown))
    return float((after - before).abs().max() / before.abs().max())


@torch.no_grad()
def _rounding(network: nn.Module, inputs: Tensor) -> float:
    """Return how far a network in single precision is from itself in double, relative to the largest output."""
    exact, single = network(inputs), copy.deepcopy(network).float()(inputs.float())
    return float((single - exact).abs().max() / exact.abs().max())


def signed_copies(spaces: Spaces, generator: torch.Generator) -> dict[int, Change]:
    """Return changes that split most channels of every growable space into two to four copies of either sign.

    The coefficients of a channel's copies sum to 1, their absolute values to `BOUND`; groups grow alike.
    """
    changes = {}
    for space in spaces.growable:
        size, groups = spaces[space].size, spaces[space].groups
        block = size // groups
        many = [_below(4, generator) + 1 for _ in range(block)]
        splits = {}
        for group in range(groups):
            order = torch.randperm(block, generator=generator).tolist()
            for channel, number in zip(order, many, strict=True):
                if number > 1:
                    splits[group * block + channel] = _coefficients(number, generator)
        changes[space] = widen(space, splits, spaces)
    return changes


def _coefficients(number: int, generator: torch.Generator) -> tuple[float, ...]:
    """Return so many numbers that sum to 1 and whose absolute values sum to `BOUND`, in a random order."""
    negative = 1 + _below(number - 1, generator)
    parts = torch.rand(number, generator=generator, dtype=torch.float64) + 0.1
    parts[:negative] *= -(BOUND - 1) / 2 / parts[:negative].sum()
    parts[negative:] *= (BOUND + 1) / 2 / parts[negative:].sum()
    return tuple(parts[torch.randperm(number, generator=generator)].tolist())


class Random(nn.Module):
    """Layers one after the other; `kinds` says what they are."""

    def __init__(self, layers: list[nn.Module], kinds: list[str]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.kinds = tuple(kinds)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return self.layers(x)


class Residual(nn.Module):
    """x + inner(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.inner(x)


class Concat(nn.Module):
    """Two branches side by side."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        """Return both branches' channels."""
        return torch.cat([self.left(x), self.right(x)], dim=1)


def random_network(generator: torch.Generator) -> Random:
    """Return a random network of float64 for pictures of three channels, in evaluation mode, nothing in it special."""
    kinds: list[str] = []
    width = 4 * (1 + _below(3, generator))
    layers: list[nn.Module] = [_conv(3, width, 3, 1, kinds, generator)]
    side = SIDE
    for _ in range(2 + _below(4, generator)):
        block, width = _block(width, kinds, generator)
        layers.append(block)
        if side > 4 and _below(2, generator):
            layers.append((nn.AvgPool2d, nn.MaxPool2d)[_below(2, generator)](2))
            side //= 2
    if _below(2, generator):
        kinds.append("flatten")
        layers.append(nn.Flatten())
        width *= side * side
    else:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if _below(2, generator):
        hidden = 3 + _below(6, generator)
        layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), _activation(generator)]
        width = hidden
    return _drawn(Random([*layers, nn.Linear(width, 5)], kinds), generator)


def _block(width: int, kinds: list[str], generator: torch.Generator) -> tuple[nn.Module, int]:
    """Return a block that reads `width` channels, and how many it makes."""
    kind = ("plain", "grouped", "depthwise", "residual", "concat")[_below(5, generator)]
    wider = 4 * (1 + _below(3, generator))
    if kind != "plain":
        kinds.append(kind)
    if kind == "grouped":
        return _conv(width, wider, 3, (2, 4)[_below(2, generator)], kinds, generator), wider
    if kind == "depthwise":
        return nn.Sequential(
            _conv(width, width, 3, width, kinds, generator), _conv(width, wider, 1, 1, kinds, generator)
        ), wider
    if kind == "residual":
        first, second = (
            _conv(width, wider, 3, 1, kinds, generator), _conv(wider, width, 3, 1, kinds, generator)
        )  # fmt: skip
        return Residual(nn.Sequential(first, second)), width
    if kind == "concat":
        left, right = _conv(width, wider, 3, 1, kinds, generator), _conv(width, 4, 1, 1, kinds, generator)
        return Concat(left, right), wider + 4
    return _conv(width, wider, 3, 1, kinds, generator), wider


def _conv(wide: int, out: int, kernel: int, groups: int, kinds: list[str], generator: torch.Generator) -> nn.Sequential:
    norm = _below(3, generator) > 0
    conv = nn.Conv2d(wide, out, kernel, padding=kernel // 2, groups=groups, bias=not norm)
    if norm:
        kinds.append("norm")
    return nn.Sequential(conv, *([nn.BatchNorm2d(out)] if norm else []), _activation(generator))


def _activation(generator: torch.Generator) -> nn.Module:
    return ACTIVATIONS[_below(len(ACTIVATIONS), generator)]()


def _drawn(network: Random, generator: torch.Generator) -> Random:
    """Give every parameter and statistic a random value, so that nothing is at a special one."""
    network = network.double().eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                drawn = drawn.abs() + 0.5
            elif tensor.dim() > 1:
                drawn = drawn * (2 / tensor[0].numel()) ** 0.5
            elif name.endswith("weight"):
                drawn = 1 + 0.3 * drawn
            else:
                drawn = 0.3 * drawn
            tensor.copy_(drawn)
    return network


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))
