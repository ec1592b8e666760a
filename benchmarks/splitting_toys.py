"""Where positive splits are stuck and signed ones are not: a bump with one neuron, and random bumps grown from one."""

__all__ = ["converged", "toys"]

import statistics
from collections.abc import Sequence
from dataclasses import replace
from math import log10

import torch
from torch import nn

from studio.core.runs import last
from studio.core.seeds import generator_from
from studio.methods.curvature import extremes
from studio.methods.growing import growing
from studio.methods.growth import Scored, changes_of, scored
from studio.methods.growth_round import GrowthConfig, choose, grow
from studio.methods.signed_splitting import signed_split
from studio.methods.split_schemes import SCHEMES
from studio.nets.activations import Gaussian
from studio.nets.probes import probed
from studio.nets.spaces import Spaces, trace
from studio.nets.surgery import NEW, Change, keep, widened
from studio.problems.growth_toys import GrowthToy, growth_toy

SEEDS = 8
WIDTHS = (4, 8, 12)
MOST = 3
EPS, C = 0.1, 3.0
ITERATIONS = 150
GROWERS = ("s2d", "s3d", "random", "net2net", "new")


def toys() -> dict[str, object]:
    """Return the losses of both toys."""
    torch.set_num_threads(1)
    return _bump() | _bumps()


def _bump(iterations: int = 1000) -> dict[str, object]:
    """Return how one converged neuron goes on after each split, and what the method as configured does there."""
    problem = growth_toy("bump", 0)
    network = problem.network(None, generator_from(0, "unused"))
    stuck = converged(problem, network, iterations)
    spaces = _spaces(problem, network)
    (each,) = _neurons(problem, network, spaces)
    figures: dict[str, object] = {
        "bump_loss_one_neuron": float(f"{stuck:.4g}"),
        "bump_lambda_min": float(f"{float(each.spectrum.low[0]):.2g}"),
        "bump_lambda_max": float(f"{float(each.spectrum.high[0]):.3g}"),
    }
    for name in SCHEMES:
        plan = signed_split(each, 0, name, C)
        grown, _ = widened(network, spaces, changes_of(spaces, [plan], EPS))
        figures[f"bump_loss_{_plain(name)}_at_split"] = float(f"{_loss(problem, grown):.4g}")
        figures[f"bump_loss_{_plain(name)}"] = float(f"{converged(problem, grown, iterations):.3g}")
    figures["s2d_stuck_loss"] = figures["bump_loss_binary_plus"]
    figures["s3d_escape_loss"] = max(
        float(str(figures[f"bump_loss_{name}"])) for name in ("binary_minus", "triplet_minus", "quartet")
    )
    for method in ("s2d", "s3d"):
        config = GrowthConfig(method=method, rounds=2, stage=100, optimiser="lbfgs", eps=EPS, share=3.0, c=C)
        end = last(growing(problem, config, generator_from(0, "bump")))
        figures[f"bump_{method}_neurons_added"] = sum(end.widths) - 1
        figures[f"bump_{method}_final_loss"] = float(f"{float(end.losses[-1]):.3g}")
    figures["s2d_refuses"] = figures["bump_s2d_neurons_added"] == 0
    print(f"  bump: {figures}", flush=True)
    return figures


def _bumps() -> dict[str, object]:
    """Return the mean log10 of the mean squared error at three widths, over seeds, of networks grown from one unit."""
    figures: dict[str, object] = {"bumps_seeds": SEEDS, "bumps_iterations_a_width": ITERATIONS}
    for method in (*GROWERS, "scratch"):
        every = [_grown(growth_toy("bumps", seed), method, seed) for seed in range(SEEDS)]
        for width in WIDTHS:
            ends = [errors[width] for errors, _ in every]
            figures[f"bumps_log10_mse_{method}_width{width}"] = round(statistics.mean(ends), 2)
            figures[f"bumps_log10_mse_{method}_width{width}_se"] = round(statistics.stdev(ends) / SEEDS**0.5, 2)
        figures[f"bumps_neurons_{method}"] = [reached for _, reached in every]
        means = [figures[f"bumps_log10_mse_{method}_width{width}"] for width in WIDTHS]
        print(f"  bumps {method}: {means}", flush=True)
    apart = [float(str(figures[f"bumps_log10_mse_{name}_width12"])) for name in ("s3d", "s2d")]
    return figures | {"bumps_s3d_minus_s2d_width12": round(apart[0] - apart[1], 2)}


def _grown(problem: GrowthToy, method: str, seed: int) -> tuple[dict[int, float], int]:
    """Return the log10 error at each of `WIDTHS` and how many neurons there were in the end.

    Neurons come one by one; signed splits may add three at once. A method that finds no split stays where it is. New
    neurons are drawn as the problem draws them, and read with small random weights.
    """
    generator, errors = generator_from(seed, "bumps", method), {}
    if method == "scratch":
        for width in WIDTHS:
            network = problem.network((width,), generator)
            errors[width] = log10(converged(problem, network, width * ITERATIONS))
        return errors, WIDTHS[-1]
    network = problem.network(None, generator_from(seed, "bumps", "start"))
    error, width = converged(problem, network, ITERATIONS), 1
    for target in WIDTHS:
        while width < target:
            room = min(MOST, target - width) if method == "s3d" else 1
            network, more = _once_more(problem, network, method, room, generator)
            if not more:
                break
            width += more
            error = converged(problem, network, ITERATIONS)
        errors[target] = log10(error)
    return errors, width


def _once_more(
    problem: GrowthToy, network: nn.Module, method: str, room: int, generator: torch.Generator
) -> tuple[nn.Module, int]:
    """Return the network after one round of growth by at most `room` neurons, and how many it gained."""
    spaces, probe = _spaces(problem, network), problem.probe(0)
    width = sum(spaces.widths)
    if method == "new":
        return widened(network, spaces, _fresh(problem, width, generator), generator)[0], 1
    config = GrowthConfig(method=method, optimiser="lbfgs", eps=EPS, c=C, share=room / width)
    choice = choose(network, spaces, config, (probe, probe), problem.batch, problem.loss, generator)
    if not choice.changes:
        return network, 0
    grown = grow(network, spaces, config, choice, probe, problem.loss, generator).network
    return grown, sum(_spaces(problem, grown).widths) - width


def _fresh(problem: GrowthToy, width: int, generator: torch.Generator) -> dict[int, Change]:
    """Return the change that adds one neuron drawn as the problem draws them (bumps differ in where they lie)."""
    drawn = problem.network((1,), generator)
    row = torch.cat([parameter.detach().flatten() for parameter in list(drawn.parameters())[:2]])
    delta = torch.zeros(width + 1, len(row), dtype=row.dtype)
    delta[-1] = row
    return {0: replace(keep([*range(width), NEW]), delta=delta, fan_out=GrowthConfig.fan_out)}


def converged(problem: GrowthToy, network: nn.Module, iterations: int) -> float:
    """Train a network on the whole set by L-BFGS and return its loss."""
    inputs, targets = problem.batch(0)
    solver = torch.optim.LBFGS(
        network.parameters(), max_iter=iterations, max_eval=2 * iterations, history_size=50, tolerance_grad=0.0,
        tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        solver.zero_grad()
        value = problem.loss(network(inputs), targets)
        value.backward()
        return value

    solver.step(closure)  # type: ignore[arg-type]
    return _loss(problem, network)


def _neurons(problem: GrowthToy, network: nn.Module, spaces: Spaces) -> Sequence[Scored]:
    inputs, targets = problem.probe(0)
    generator = generator_from(0, "lanczos")
    return scored(
        network, spaces, inputs, lambda outputs: problem.loss(outputs, targets), dict.fromkeys(spaces.splittable, 1.0),
        lambda curvature: extremes(curvature, generator),
    )  # fmt: skip


def _spaces(problem: GrowthToy, network: nn.Module) -> Spaces:
    return probed(network, trace(network, problem.example, (Gaussian,)), problem.example)


def _loss(problem: GrowthToy, network: nn.Module) -> float:
    inputs, targets = problem.batch(0)
    with torch.no_grad():
        return float(problem.loss(network(inputs), targets))


def _plain(name: str) -> str:
    return name.replace("+", "_plus").replace("-", "_minus")
