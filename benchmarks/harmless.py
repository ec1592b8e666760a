"""Harmless diversity on landscapes, pictures and ensembles, and what a step costs: all of `harmless.json`."""

__all__ = ["main"]

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harmless_ensembles import SEEDS, ensembles
from benchmarks.harmless_images import diverse, overhead
from benchmarks.record import write_record
from studio.core.runs import last
from studio.core.seeds import generator_from
from studio.methods.diversity import distinct
from studio.methods.harmless import Harmless, Spread, harmless
from studio.problems.planes import plane

COMMAND = "python run.py bench harmless --data FOLDER"
PARTS = ("landscapes", "overhead", "ensembles", "images")


def main(arguments: list[str]) -> int:
    """Measure all parts, or one of them, and write the record."""
    parser = argparse.ArgumentParser(prog="python run.py bench harmless", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="measure one part and keep the others' figures")
    parser.add_argument("--data", type=Path, help="folder that holds images/fashion_mnist and images/mnist")
    options = parser.parse_args(arguments)
    if options.data is None:
        print("Fashion-MNIST is left out: name its folder with --data", flush=True)
    measures: dict[str, Callable[[], dict[str, object]]] = {
        "landscapes": landscapes,
        "overhead": overhead,
        "ensembles": partial(ensembles, options.data),
        "images": diverse,
    }
    for part in PARTS if options.only is None else (options.only,):
        write_record("harmless", COMMAND, list(range(SEEDS)), measures[part]())
    return 0


def landscapes(seeds: int = 8, points: int = 20) -> dict[str, object]:
    """Return how losses and gaps end on the planes, means over seeds, from one tight cluster."""

    def ends(name: str, method: str, rate: float, **settings: float) -> list[Spread]:
        config = Harmless(method=method, rate=rate, **settings)  # type: ignore[arg-type]
        width = 0.15 / plane(name).window if name != "rugged" else 0.15
        starts = (plane(name).start(points, generator_from(seed, "bench"), width) for seed in range(seeds))
        return [last(harmless(plane(name), start, config)) for start in starts]

    figures: dict[str, object] = {"landscape_seeds": seeds}
    for name, method in (("ring", "max"), ("ring", "sum"), ("ring", "plain"), ("curve", "max"), ("curve", "plain")):
        runs = ends(name, method, plane(name).rate)
        figures[f"{name}_mean_loss_{method}"] = statistics.mean(run.losses.mean().item() for run in runs)
        figures[f"{name}_nearest_gap_{method}"] = round(statistics.mean(run.gaps[-1].item() for run in runs), 4)
    figures["ring_mean_loss"] = figures["ring_mean_loss_max"]
    figures["ring_nearest_gap"] = figures["ring_nearest_gap_max"]
    minima = plane("himmelblau").optimum
    for method, label in (("max", "fmax"), ("sum", "fsum"), ("plain", "plain")):
        runs = ends("himmelblau", method, 0.5, kappa=0.9, steps=400)
        figures[f"himmelblau_minima_{label}"] = statistics.mean(distinct(run.points, minima, 0.1) for run in runs)
        figures[f"himmelblau_max_loss_{label}"] = max(run.losses.max().item() for run in runs)
    for method in ("ceiling", "max", "plain"):
        runs = ends("rugged", method, plane("rugged").rate)
        figures[f"rugged_best_loss_{method}"] = round(statistics.mean(run.losses.min().item() for run in runs), 4)
    return figures
