"""Do splits do to the loss what their curvature promises? Order, size, paths, spectra and the optimiser, in float64."""

__all__ = ["laws"]

import copy
from collections.abc import Callable, Iterator, Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional

from studio.core.seeds import generator_from
from studio.methods.curvature import curvatures, dense, extremes, second_derivative
from studio.methods.fast_splitting import rayleigh_spectra
from studio.methods.growth import Planned, changes_of
from studio.methods.growth_round import GrowthConfig
from studio.nets.activations import SMOOTH
from studio.nets.carry import carry
from studio.nets.families import draw, family
from studio.nets.spaces import Spaces, trace
from studio.nets.surgery import widen, widened
from studio.problems.digits import labelled

Loss = Callable[[Tensor], Tensor]
Data = tuple[Tensor, Tensor]


def laws() -> dict[str, object]:
    """Return measured over predicted changes, errors of spectra, and what carrying the optimiser's state saves."""
    torch.set_num_threads(1)
    figures = _one_neuron() | _joint() | _paths() | _spectra() | _carried()
    for name, value in figures.items():
        print(f"  {name}: {value}", flush=True)
    return figures


def _one_neuron() -> dict[str, object]:
    """G4 and G5: a perceptron 64-16-10, its lowest neuron split alone."""
    data, figures = _digits(), {}
    for activation in (name for name in SMOOTH if name != "gaussian"):
        network = _trained(family("mlp", (1, 8, 8), (16,), 10, activation), data, 150, 0.02)
        plans = _lowest(network, data)
        plan = min(plans, key=lambda each: each.gain)
        changes = {eps: _change(network, data, [plan], eps) for eps in (0.001, 0.003, 0.01, 0.03)}
        figures[f"predicted_ratio_{activation}"] = round(changes[0.03] / (0.03**2 * plan.gain), 4)
        if activation == "silu":
            figures["split_order_slope"] = round(_slope(list(changes), [abs(each) for each in changes.values()]), 4)
    return figures


def _joint() -> dict[str, object]:
    """G6: all neurons of three convolutions with batch norm and average pooling, split at once."""
    data = _first(_digits(), 256)
    network = family("vgg", (1, 8, 8), (4, 4, 4), 10, "silu")
    network = _trained(network, data, 60, 0.01)
    plans = _lowest(network, data)
    wanted = sum(plan.gain for plan in plans)
    return {
        "joint_ratio": round(_change(network, data, plans, 0.03) / (0.03**2 * wanted), 4),
        "joint_neurons": len(plans),
    }


def _paths() -> dict[str, object]:
    """G7: channels that go through a depthwise filter: the whole path's matrix, and that of its first activation."""
    data = _digits()
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 16, 1), nn.SiLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    network = _trained(network, data, 4 * 28, 0.003, batch=64)
    eps, found = 0.01, {}
    whole = [plan for plan in _lowest(network, data) if plan.space == 0]
    for name, plans in (("path", whole), ("naive_path", _naive(network, data))):
        ratios = [_change(network, data, [plan], eps) / (eps**2 * plan.gain) for plan in plans]
        found |= {f"{name}_ratio_min": round(min(ratios), 4), f"{name}_ratio_max": round(max(ratios), 4)}
    return found


def _naive(network: nn.Module, data: Data) -> list[Planned]:
    """Return splits along the lowest eigenvectors of the matrices taken right behind the first activation."""
    conv, norm, bend, rest = network[0], network[1], network[2], network[3:]  # type: ignore[index]
    with torch.no_grad():
        z = norm(conv(data[0]))
    behind = bend(z).requires_grad_()
    (g,) = torch.autograd.grad(_mean(data)(rest(behind)), behind)
    slope = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    weights = g * second_derivative(bend, z) * slope.view(1, -1, 1, 1).square()
    patches = functional.unfold(data[0], 3, padding=1)
    matrices = torch.einsum("bnp,bdp,bep->nde", weights.flatten(2), patches, patches)
    values, vectors = torch.linalg.eigh(matrices)
    ways = vectors[:, :, 0]
    return [
        Planned(0, neuron, "naive", (0.5, 0.5), torch.stack([ways[neuron], -ways[neuron]]), 0.5 * float(value))
        for neuron, value in enumerate(values[:, 0])
    ]


def _spectra() -> dict[str, object]:
    """G10 and G11: the second layer of a small trained network (8 neurons of 72 parameters) against `eigh`."""
    data = _digits()
    network = _trained(family("vgg", (1, 8, 8), (8, 8), 10, "silu"), data, 8 * 28, 0.003, batch=64)
    spaces = trace(network, data[0][:2])
    (curvature,) = curvatures(network, spaces, data[0], _mean(data), (1,))
    exact = torch.linalg.eigvalsh(dense(curvature))
    low, high, figures = exact[:, 0], exact[:, -1], {}
    for products in (12, 16):
        found = extremes(curvature, generator_from(0, "lanczos"), products, 0.0)
        figures[f"lanczos_{products}_products_error_low"] = _rounded(float(((found.low - low) / low).abs().max()))
        figures[f"lanczos_{products}_products_error_high"] = _rounded(float(((found.high - high) / high).abs().max()))
    default = GrowthConfig.descent
    for name, steps, batch in (("", 160, 256), ("_default", default, 64), ("_long", 4 * default, 64)):
        found = rayleigh_spectra(
            network, spaces, _batches(data, batch), steps, generator_from(0, "rayleigh")
        )[1].low  # fmt: skip
        error = ((found - low) / low).abs()
        figures |= {
            f"rayleigh{name}_steps": steps,
            f"rayleigh{name}_batch": batch,
            f"rayleigh_error{name}": round(float(error.mean()), 4),
            f"rayleigh_error{name}_max": round(float(error.max()), 4),
            f"rayleigh_rank_correlation{name}": round(_rank_correlation(found, low), 4),
        }
    return figures


def _carried() -> dict[str, object]:
    """G24: 600 steps of Adam, half the neurons copied in place, 100 more steps: the highest loss on the way.

    Ratios to the run without a split: with the state carried over, and with a new optimiser.
    """
    data = _digits()
    network = draw(family("mlp", (1, 8, 8), (6,), 10, "silu"), generator_from(0, "carry")).double()
    before = torch.optim.Adam(network.parameters(), lr=0.02)
    _train(network, before, data, 600)
    spaces = trace(network, data[0][:2])
    grown, edits = widened(network, spaces, {0: widen(0, dict.fromkeys(range(3), (0.5, 0.5)), spaces)})
    plain, carried, reset = copy.deepcopy(network), copy.deepcopy(grown), copy.deepcopy(grown)
    optimisers = [torch.optim.Adam(each.parameters(), lr=0.02) for each in (plain, network, reset)]
    for optimiser in optimisers[:2]:
        optimiser.load_state_dict(copy.deepcopy(before.state_dict()))
    carry(optimisers[1], network, carried, edits)
    losses = [max(_train(net, opt, data, 100)) for net, opt in zip((plain, carried, reset), optimisers, strict=True)]
    return {
        "carry_loss_ratio": round(losses[1] / losses[0], 4),
        "reset_loss_ratio": round(losses[2] / losses[0], 4),
        "carry_loss_unsplit": round(losses[0], 5),
    }


def _lowest(network: nn.Module, data: Data) -> list[Planned]:
    """Return the equal split of every neuron along its lowest eigenvector, from exact matrices."""
    plans = []
    for each in curvatures(network, _spaces(network, data), data[0], _mean(data)):
        values, vectors = torch.linalg.eigh(dense(each))
        for neuron, (value, way) in enumerate(zip(values[:, 0], vectors[:, :, 0], strict=True)):
            plans.append(Planned(each.space, neuron, "binary+", (0.5, 0.5), torch.stack([way, -way]), float(value) / 2))
    return plans


@torch.no_grad()
def _change(network: nn.Module, data: Data, plans: Sequence[Planned], eps: float) -> float:
    spaces = _spaces(network, data)
    grown, _ = widened(network, spaces, changes_of(spaces, plans, eps))
    loss = _mean(data)
    return float(loss(grown.eval()(data[0])) - loss(network(data[0])))


def _spaces(network: nn.Module, data: Data) -> Spaces:
    return trace(network, data[0][:2])


def _mean(data: Data) -> Loss:
    return lambda outputs: functional.cross_entropy(outputs, data[1])


def _digits() -> Data:
    found = labelled("digits")
    return found.inputs.double().view(-1, 1, 8, 8), found.labels


def _first(data: Data, count: int) -> Data:
    return data[0][:count], data[1][:count]


def _batches(data: Data, size: int) -> Iterator[tuple[Tensor, Loss]]:
    """Yield random batches without end."""
    generator = generator_from(0, "batches", size)
    while True:
        for rows in torch.randperm(len(data[0]), generator=generator).split(size)[:-1]:
            yield data[0][rows], _mean((data[0][rows], data[1][rows]))


def _trained(network: nn.Module, data: Data, steps: int, rate: float, batch: int = 0) -> nn.Module:
    """Return a network drawn and trained by Adam in float64, in evaluation mode."""
    network = draw(network, generator_from(0, "laws")).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    _train(network, optimiser, data, steps, batch)
    return network.eval()


def _train(network: nn.Module, optimiser: torch.optim.Optimizer, data: Data, steps: int, batch: int = 0) -> list[float]:
    """Return the losses of so many steps, on the whole set or on random batches."""
    network.train()
    source = _batches(data, batch) if batch else None
    losses = []
    for _ in range(steps):
        inputs, loss = next(source) if source else (data[0], _mean(data))
        optimiser.zero_grad()
        value = loss(network(inputs))
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    return losses


def _slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the straight line through logarithms."""
    x = torch.tensor([log(each) for each in at], dtype=torch.float64)
    y = torch.tensor([log(each) for each in values], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def _rank_correlation(first: Tensor, second: Tensor) -> float:
    ranks = torch.stack([each.argsort().argsort().double() for each in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
