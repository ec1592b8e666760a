"""What scoring costs: a whole scoring step against building every matrix, one product, and a step of the fast descent.

Seconds are those of the process on one thread; ratios are of pairs taken in turns, with medians and quartiles.
"""

__all__ = ["overhead", "scoring"]

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from studio.core.seeds import generator_from
from studio.methods.curvature import Curvature, Spectrum, curvatures, extremes, second_derivative
from studio.methods.fast_splitting import rayleigh_start, rayleigh_step
from studio.nets.families import draw, family
from studio.nets.spaces import Spaces, trace


@dataclass(frozen=True)
class Layer:
    """A convolution to score, the batch that scores it, and how often it is timed."""

    wide: int
    out: int
    kernel: int
    batch: int
    side: int
    pairs: int
    dense: int
    official: int

    @property
    def d(self) -> int:
        """Return how many parameters a neuron has."""
        return self.wide * self.kernel**2


LAYERS = (
    Layer(64, 64, 1, 64, 8, 25, 15, 5),
    Layer(16, 32, 3, 16, 16, 25, 15, 5),
    Layer(64, 32, 3, 16, 16, 15, 7, 1),
    Layer(128, 32, 3, 16, 16, 9, 3, 0),
)
OVERHEAD = {
    "vgg": ((3, 16, 16), (16, 16, 32, 32), 64),
    "mlp": ((1, 8, 8), (64, 64), 256),
    "mobilenet": ((3, 16, 16), (16, 16, 32, 32, 32), 64),
}
PAIRS = 60
Data = tuple[Tensor, Tensor]


def scoring() -> dict[str, object]:
    """Return what scoring all neurons of a layer costs, how far off it is, and what one product costs."""
    torch.set_num_threads(1)
    figures: dict[str, object] = {"scoring_trials": {f"d{layer.d}": layer.pairs for layer in LAYERS}}
    worst: dict[str, float] = {}
    for layer in LAYERS:
        found, errors = _scored(layer)
        figures |= found
        worst = {name: max(error, worst.get(name, 0.0)) for name, error in errors.items()}
        print(f"  d = {layer.d}: {found}", flush=True)
    figures |= {name: float(f"{error:.2g}") for name, error in worst.items()}
    smooth = {f"lanczos_relative_error_smooth_d{layer.d}": _smooth_error(layer) for layer in LAYERS}
    print(f"  {smooth}", flush=True)
    return figures | smooth | _product()


def overhead() -> dict[str, object]:
    """Return what a step of the fast descent on all layers costs over an ordinary training step, in percent."""
    torch.set_num_threads(1)
    figures: dict[str, object] = {"fast_pairs": PAIRS}
    for name, (shape, widths, batch) in OVERHEAD.items():
        ratios, fast, plain = _overhead(name, shape, widths, batch)
        low, middle, high = statistics.quantiles(ratios, n=4)
        suffix = "" if name == "vgg" else f"_{name}"
        figures |= {
            f"fast_overhead_percent{suffix}": round(100 * (middle - 1), 1),
            f"fast_overhead_percent{suffix}_quartiles": [round(100 * (low - 1), 1), round(100 * (high - 1), 1)],
            f"fast_step_cpu_seconds{suffix}": round(fast, 5),
            f"training_step_cpu_seconds{suffix}": round(plain, 5),
        }
        print(f"  {name}: {100 * (middle - 1):.1f} % ({100 * (low - 1):.1f} to {100 * (high - 1):.1f})", flush=True)
    return figures


def _scored(layer: Layer) -> tuple[dict[str, object], dict[str, float]]:
    network, spaces, data = _subject(layer)
    rows, weights = _ingredients(network, data)
    ours, other, official, spectra = [], [], [], []
    for trial in range(layer.pairs):
        spent, (spectrum, products) = _timed(lambda trial=trial: _ours(network, spaces, data, trial))
        ours.append(spent)
        spectra.append((spectrum, products))
        if trial < layer.dense:
            other.append(_timed(lambda: torch.linalg.eigh(_matrices(*_ingredients(network, data))))[0])
        if trial < layer.official:
            official.append(_timed(lambda: _official(*_ingredients(network, data)))[0])
    exact = torch.linalg.eigvalsh(_matrices(rows.double(), weights.double()))
    size, name = exact.abs().amax(dim=1), f"d{layer.d}"
    apart = torch.stack([
        torch.stack([each.low - exact[:, 0], each.high - exact[:, -1]]).abs() for each, _ in spectra
    ]).amax(dim=0)  # fmt: skip
    ends = exact[:, [0, -1]].T.abs()
    errors = {
        "lanczos_relative_error": float((apart / size).max()),
        "lanczos_relative_error_lambda": float((apart / ends)[ends > 0.05 * size].max()),
    }
    figures: dict[str, object] = {
        f"scoring_cpu_seconds_{name}": round(statistics.median(ours), 4),
        f"scoring_cpu_seconds_{name}_quartiles": _quartiles(ours, 4),
        f"dense_cpu_seconds_{name}": round(statistics.median(other), 4),
        f"dense_over_lanczos_{name}": round(statistics.median(b / a for a, b in zip(ours, other, strict=False)), 2),
        f"lanczos_products_{name}": statistics.median(products for _, products in spectra),
        f"lanczos_relative_error_{name}": float(f"{errors['lanczos_relative_error']:.2g}"),
    }
    if official:
        figures[f"official_style_cpu_seconds_{name}"] = round(statistics.median(official), 3)
    return figures, errors


def _smooth_error(layer: Layer) -> float:
    """Return the error of either end, relative to the norm, where the layer is given a smooth picture's features.

    White noise, which is what is timed, has the spectra that are hardest for Lanczos' iteration.
    """
    network, spaces, data = _subject(layer, True)
    spectrum, _ = _ours(network, spaces, data, 0)
    exact = torch.linalg.eigvalsh(_matrices(*(each.double() for each in _ingredients(network, data))))
    apart = torch.stack([spectrum.low - exact[:, 0], spectrum.high - exact[:, -1]]).abs()
    return float(f"{float((apart / exact.abs().amax(dim=1)).max()):.2g}")


def _subject(layer: Layer, smooth: bool = False) -> tuple[nn.Module, Spaces, Data]:
    """Return a network of one convolution, SiLU and a linear head over the picture's mean, with random data.

    Inputs are white noise, or what a random convolution and SiLU make of smooth pictures of three channels.
    """
    generator = generator_from(layer.d, "scoring")
    network = nn.Sequential(
        nn.Conv2d(layer.wide, layer.out, layer.kernel, padding=layer.kernel // 2, bias=False), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(layer.out, 10),
    )  # fmt: skip
    draw(network, generator)
    inputs = torch.randn(layer.batch, layer.wide, layer.side, layer.side, generator=generator)
    if smooth:
        coarse = torch.randn(layer.batch, 3, 4, 4, generator=generator)
        pictures = functional.interpolate(coarse, size=(layer.side, layer.side), mode="bilinear")
        before = draw(nn.Conv2d(3, layer.wide, 3, padding=1), generator)
        inputs = functional.silu(before(pictures)).detach()
    labels = torch.randint(10, (layer.batch,), generator=generator)
    return network, trace(network, inputs[:2]), (inputs, labels)


def _ours(network: nn.Module, spaces: Spaces, data: Data, seed: int) -> tuple[Spectrum, int]:
    inputs, labels = data
    (curvature,) = curvatures(network, spaces, inputs, lambda outputs: functional.cross_entropy(outputs, labels))
    calls = 0

    def counted(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return curvature.product(v)

    counting: Curvature = replace(curvature, product=counted)
    return extremes(counting, generator_from(seed, "start")), calls


def _ingredients(network: nn.Module, data: Data) -> tuple[Tensor, Tensor]:
    """Return the patches (positions, d) and g phi'' (positions, neurons): all that the matrices are made of."""
    inputs, labels = data
    conv, bend = network[0], network[1]  # type: ignore[index]
    with torch.no_grad():
        z = conv(inputs)
    behind = bend(z).requires_grad_()
    loss = functional.cross_entropy(network[2:](behind), labels)  # type: ignore[index]
    (g,) = torch.autograd.grad(loss, behind)
    weights = (g * second_derivative(bend, z)).movedim(1, -1).flatten(0, -2)
    patches = functional.unfold(inputs, conv.kernel_size, padding=conv.padding)
    return patches.movedim(1, -1).flatten(0, 1).contiguous(), weights


def _matrices(rows: Tensor, weights: Tensor) -> Tensor:
    """Return every neuron's splitting matrix."""
    return torch.stack([(rows * weight[:, None]).T @ rows for weight in weights.T])


def _official(rows: Tensor, weights: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Do as the papers' code does: neuron by neuron, a matrix, and NumPy's eigenvectors of any matrix."""
    return [np.linalg.eig(((rows * weight[:, None]).T @ rows).numpy()) for weight in weights.T]


def _product(trials: int = 60) -> dict[str, object]:
    """Return the time of one product of a 64-channel 3 x 3 layer over that of its forward pass."""
    generator = generator_from(0, "product")
    network = draw(
        nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(64, 10),
        ), generator,
    )  # fmt: skip
    inputs = torch.randn(128, 64, 8, 8, generator=generator)
    labels = torch.randint(10, (128,), generator=generator)
    spaces = trace(network, inputs[:2])
    (curvature,) = curvatures(network, spaces, inputs, lambda outputs: functional.cross_entropy(outputs, labels))
    v = torch.randn(curvature.size, generator=generator)
    ratios = []
    with torch.no_grad():
        for _ in range(trials):
            forward, product = _timed(lambda: network[0](inputs))[0], _timed(lambda: curvature.product(v))[0]
            ratios.append(product / forward)
    print(f"  a product takes {statistics.median(ratios):.2f} forward passes", flush=True)
    return {
        "closed_product_over_forward": round(statistics.median(ratios), 2),
        "closed_product_over_forward_quartiles": _quartiles(ratios, 2),
        "closed_product_trials": trials,
    }


def _overhead(
    name: str, shape: tuple[int, int, int], widths: tuple[int, ...], batch: int
) -> tuple[list[float], float, float]:
    generator = generator_from(0, "overhead", name)
    network = draw(family(name, shape, widths, 10), generator)
    inputs = torch.randn(batch, *shape, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    spaces = trace(network, inputs[:2])
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def loss(outputs: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels)

    states = {
        each.space: rayleigh_start(each, generator) for each in curvatures(network, spaces, inputs, loss)
    }  # fmt: skip

    def plain() -> None:
        network.train()
        optimiser.zero_grad()
        loss(network(inputs)).backward()
        optimiser.step()

    def fast() -> None:
        for each in curvatures(network, spaces, inputs, loss):
            states[each.space] = rayleigh_step(each, states[each.space], 0.1)[0]

    for _ in range(5):
        plain(), fast()
    pairs = [(_timed(plain)[0], _timed(fast)[0]) for _ in range(PAIRS)]
    first, second = (statistics.median(pair[k] for pair in pairs) for k in range(2))
    return [fast / plain for plain, fast in pairs], second, first


def _timed(work: Callable[[], object]) -> tuple[float, object]:  # type: ignore[type-arg]
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def _quartiles(values: list[float], digits: int) -> list[float]:
    low, _, high = statistics.quantiles(values, n=4)
    return [round(low, digits), round(high, digits)]
