"""Do imitation errors fall as fast as the theorem says, and where does that end? Rates, hulls, digits, screening."""

__all__ = ["laws"]

import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from math import exp, log
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from studio.core.seeds import generator_from
from studio.methods.decay import FLOOR, RateFit, fit_rate, interior_certificate
from studio.methods.forward_selection import RULES, Selection, Stop, centred, ranked, select
from studio.methods.global_imitation import Outputs, imitate_outputs, taylor_slopes
from studio.methods.pruning_baselines import baseline_order, scores
from studio.methods.pruning_cut import gates_of, shrunk
from studio.nets.contributions import contributions
from studio.nets.families import draw, family
from studio.nets.prefix import Prefix
from studio.nets.spaces import trace
from studio.problems.growth_images import GrowthImages, raw_images

SEEDS = 5
KEPT = 40
POINTS = (5, 10, 20, 40, 80)
SIZES = (30, 60, 120, 250, 500)
TEACHER, PRUNED, TRAINING = 50, 1000, 1000


def laws() -> dict[str, object]:
    """Return rates of decay, certificates, the diabetes crossover, accuracies on digits, screening and the toy."""
    torch.set_num_threads(1)
    figures: dict[str, object] = {}
    for part in (_spheres, _certificates, _diabetes, _digits, _taylor, _toy):
        begin = time.perf_counter()
        found = part()
        for name, value in found.items():
            print(f"  {name}: {value}", flush=True)
        print(f"  ({part.__name__[1:]}: {time.perf_counter() - begin:.0f} s)", flush=True)
        figures |= found
    return figures


def _spheres() -> dict[str, object]:
    """G5, G6 and G8: unit vectors about their mean, medians of five seeds; rates are those of a step."""
    figures: dict[str, object] = {}
    for dimension, neurons in ((8, 512), (16, 512), (32, 512), (32, 4096)):
        searched, fixed, exact, residual = [], [], [], []
        for seed in range(SEEDS):
            rows = np.random.default_rng(seed).normal(size=(neurons, dimension))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            rows -= rows.mean(axis=0)
            gram = rows @ rows.T
            searched.append(_fit(select(gram, "line_search", Stop(steps=300))))
            fixed.append(_fit(select(gram, "fixed_step", Stop(steps=300))).power)
            path = select(gram, "fully_corrective", Stop())
            exact.append(path.kept[-1])
            residual.append(float(np.square(path.weights() @ rows).sum()))
        name = f"d{dimension}" + ("" if neurons == 512 else f"_n{neurons}")
        figures |= {
            f"exp_slope_{name}": _rounded(-median(fit.exp_rate for fit in searched)),
            f"exp_r2_{name}": _rounded(median(fit.exp_r2 for fit in searched), 4),
            f"power_r2_{name}": _rounded(median(fit.power_r2 for fit in searched), 4),
            f"fixed_step_slope_{name}": _rounded(-median(fixed)),
            f"caratheodory_support_{name}": sorted(set(exact)),
            f"caratheodory_residual_{name}": _rounded(max(residual), 2),
        }
    return figures | {"fixed_step_loglog_slope": figures["fixed_step_slope_d16"]}


def _certificates() -> dict[str, object]:
    """G4: the worst ratio of two errors that follow each other, and the bound 1 - r^2 / diam^2."""
    rows_of, holds = [], 0
    for dimension in range(2, 6):
        for neurons in (30, 200):
            rows = np.random.default_rng(dimension).normal(size=(neurons, dimension))
            rows -= rows.mean(axis=0)
            bound = interior_certificate(rows).ratio
            path = select(rows @ rows.T, "line_search", Stop(steps=300))
            errors = [error for error in path.errors if error > FLOOR * path.errors[0]]
            worst = max(after / before for before, after in pairwise(errors))
            holds += worst <= bound
            rows_of.append({"dimension": dimension, "neurons": neurons, "worst": _rounded(worst),
                            "bound": _rounded(bound)})  # fmt: skip
    return {"certificate_holds": holds, "certificate_of": len(rows_of), "certificates": rows_of}


def _diabetes() -> dict[str, object]:
    """G7: a ReLU network on the diabetes data, imitated on few examples and on all; 300 steps, on all of them 600."""
    table, inputs_targets = [], _diabetes_data()
    for neurons, counts in ((2000, POINTS), (512, (442,)), (2048, (442,))):
        phi = _trained_contributions(*inputs_targets, neurons)
        order = np.random.default_rng(0).permutation(phi.shape[1])
        for count in counts:
            rows = phi[:, order[:count]]
            gram = centred(rows @ rows.T)
            row: dict[str, object] = {"neurons": neurons, "examples": count}
            for rule in ("line_search", "fixed_step"):
                path = select(gram, rule, Stop(steps=300 if count < 442 else 600))
                fit = _fit(path)
                row[rule] = {
                    "preferred": fit.preferred, "exp_slope": _rounded(-fit.exp_rate), "exp_r2": _rounded(fit.exp_r2, 4),
                    "power_slope": _rounded(-fit.power), "power_r2": _rounded(fit.power_r2, 4),
                    "neurons_kept": path.kept[-1],
                }  # fmt: skip
            table.append(row)
    return {"diabetes": table}


def _digits() -> dict[str, object]:
    """G9: a perceptron 64-256-10 whose hidden layer is cut to 40 neurons or fewer, without tuning; test accuracies.

    Magnitude and random are rescaled, so that their weights sum to 1 as those of the others do.
    """
    found: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        problem = raw_images("digits", "mlp", "relu", "average", 1200, 128, seed)
        network = _trained(problem, (256,), seed, 300)
        spaces = trace(network, problem.example)
        space = spaces.growable[0]
        seen = contributions(network, spaces, space, Prefix(spaces, [problem.inputs]), 1, generator_from(0, "places"))
        gram, stop = centred(seen.gram.numpy()), Stop(neurons=KEPT, settle=True)
        paths = {rule: select(gram, rule, stop) for rule in RULES}
        for name in ("magnitude", "random"):
            score = scores(network, spaces, name, (), problem.loss, generator_from(seed, "random"))[space]
            paths[name] = ranked(gram, baseline_order(score, seen.members).numpy(), stop)
        found.setdefault("whole", []).append(problem.accuracy(network))
        for name, path in paths.items():
            gates = gates_of(seen.members, path.weights(path.at(KEPT)))
            found.setdefault(name, []).append(problem.accuracy(shrunk(network, spaces, {space: gates})[0]))
    medians = {f"digits_accuracy_40_{name}": _rounded(median(values), 4) for name, values in found.items()}
    gap = [
        line - max(pair)
        for line, *pair in zip(*(found[n] for n in ("line_search", "magnitude", "random")), strict=True)
    ]
    return {
        "digits_accuracy_40_of_256": medians["digits_accuracy_40_line_search"], **medians,
        "digits_points_above_both_baselines": _rounded(100 * median(gap)),
    }  # fmt: skip


def _taylor() -> dict[str, object]:
    """G11: the first hidden layer of a perceptron 64-128-128-10 cut to 31 neurons by what its logits become."""
    problem = raw_images("digits", "mlp", "relu", "average", 1200, 128, 0)
    network = _trained(problem, (128, 128), 0, 300)
    spaces, inputs = trace(network, problem.example), problem.inputs[:128]
    with torch.no_grad():
        aim = network(inputs)
    outputs = Outputs(network, spaces, spaces.growable[0], torch.arange(128)[:, None], Prefix(spaces, [inputs]), [aim])
    stop = Stop(neurons=31)
    paths = {screen: imitate_outputs(outputs, stop, screen, False) for screen in (0, 10, 1)}
    ranks = []
    for step in range(1, len(paths[0])):
        before = paths[0].weights(step - 1)
        slopes = taylor_slopes(outputs, before)
        allowed = (before > 0) | (paths[0].kept[step - 1] < stop.neurons)
        ranks.append(int((slopes[allowed] < slopes[paths[0].touched[step]]).sum()))
    return {
        **{f"taylor_best_in_top_{most}": _rounded(float(np.mean(np.array(ranks) < most))) for most in (1, 5, 10)},
        **{f"taylor_error_ratio_{k}": _rounded(paths[k].errors[-1] / paths[0].errors[-1]) for k in (10, 1)},
        **{f"taylor_passes_{k or 'all'}": paths[k].passes for k in (0, 10, 1)},
    }  # fmt: skip


def _toy() -> dict[str, object]:
    """The picture of the earlier paper: a network of 1,000 neurons pruned to n, and networks trained with n.

    Errors are mean squares over the training inputs, slopes those of their logarithms against log n; neither is tuned.
    """
    generator = generator_from(0, "toy")
    inputs = torch.randn(400, 11, generator=generator)
    inputs[:, -1] = 1
    first, second = torch.randn(TEACHER, 11, generator=generator), torch.randn(TEACHER, generator=generator)
    targets = torch.tanh(inputs @ first.T / 11**0.5) @ second / TEACHER**0.5
    rows = _two_layers(inputs, targets, PRUNED, 0).double().numpy()
    whole, aims = rows.mean(axis=0), targets.double().numpy()
    pruned, trained = [], []
    path = select(centred(rows @ rows.T), "fixed_step", Stop(neurons=max(SIZES), steps=4000))
    for size in SIZES:
        pruned.append(float(np.square(path.weights(path.at(size)) @ rows - aims).mean()))
        small = [_two_layers(inputs, targets, size, 1 + seed).double().numpy().mean(axis=0) for seed in range(2)]
        trained.append(median(float(np.square(one - aims).mean()) for one in small))
    lines = [np.polyfit(np.log(SIZES), np.log(errors), 1) for errors in (pruned, trained)]
    apart = lines[0][0] - lines[1][0]
    return {
        "toy_sizes": list(SIZES), "toy_whole_error": _rounded(float(np.square(whole - aims).mean())),
        "toy_pruned_errors": [_rounded(error) for error in pruned],
        "toy_trained_errors": [_rounded(error) for error in trained],
        "toy_pruned_slope": _rounded(float(lines[0][0])), "toy_trained_slope": _rounded(float(lines[1][0])),
        "toy_lines_cross_at": _crossing(float(lines[1][1] - lines[0][1]), float(apart)),
    }  # fmt: skip


def _crossing(height: float, slope: float) -> int | None:
    """Return the number of neurons at which two lines meet, where it lies among or near those measured."""
    at = height / slope if slope else 0.0
    return round(exp(at)) if log(SIZES[0] / 3) < at < log(SIZES[-1] * 3) else None


def _two_layers(inputs: Tensor, targets: Tensor, neurons: int, seed: int) -> Tensor:
    """Return what each neuron of a trained network adds, times their number, (n, examples)."""
    generator = generator_from(seed, "two layers", neurons)
    first = torch.randn(neurons, inputs.shape[1], generator=generator) / inputs.shape[1] ** 0.5
    second = torch.randn(neurons, generator=generator)
    weights = [first.requires_grad_(), second.requires_grad_()]
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, TRAINING)
    for _ in range(TRAINING):
        optimiser.zero_grad()
        made = torch.tanh(inputs @ weights[0].T) @ weights[1] / neurons
        (made - targets).square().mean().backward()
        optimiser.step()
        rates.step()
    with torch.no_grad():
        return (torch.tanh(inputs @ weights[0].T) * weights[1]).T


def _diabetes_data() -> tuple[Tensor, Tensor]:
    """Return the inputs with a column of ones and the targets, in units of their deviations about their means."""
    origin = find_spec("sklearn")
    folder = Path((origin and origin.origin) or "").parent / "datasets" / "data"
    inputs, targets = (
        torch.from_numpy(np.loadtxt(folder / f"diabetes_{part}.csv.gz", dtype=np.float32))
        for part in ("data_raw", "target")
    )
    inputs, targets = (part.sub(part.mean(dim=0)).div(part.std(dim=0)) for part in (inputs, targets))
    return torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1), targets


def _trained_contributions(inputs: Tensor, targets: Tensor, neurons: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(neurons, 11, generator=generator), torch.randn(neurons, generator=generator)
    weights = [(first * (2 / 11) ** 0.5).requires_grad_(), (second / neurons**0.5).requires_grad_()]
    optimiser = torch.optim.Adam(weights, lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        (torch.relu(inputs @ weights[0].T) @ weights[1] - targets).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        return (neurons * torch.relu(inputs @ weights[0].T) * weights[1]).T.double().numpy()


def _trained(problem: GrowthImages, widths: Sequence[int], seed: int, steps: int) -> nn.Module:
    network = draw(family("mlp", (1, 8, 8), widths, 10, "relu"), generator_from(seed, "pruning laws"))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(steps):
        inputs, labels = problem.batch(step)
        optimiser.zero_grad()
        problem.loss(network(inputs), labels).backward()
        optimiser.step()
    return network.eval()


def _fit(path: Selection) -> RateFit:
    return fit_rate(np.arange(1, len(path) + 1), np.array(path.errors))


def _rounded(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")
