"""Pruning by greedy imitation: laws, speed, accuracy against cost, growth and pruning in turn: `pruning.json`."""

__all__ = ["main"]

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.pruning_accuracy import TASKS, accuracy
from benchmarks.pruning_both import both
from benchmarks.pruning_checks import checked, hostile
from benchmarks.pruning_laws import laws
from benchmarks.pruning_plot import plotted
from benchmarks.pruning_speed import latency, speed
from benchmarks.record import write_record
from studio.files.datasets import VARIABLE

COMMAND = "OMP_NUM_THREADS=1 python run.py bench pruning --data FOLDER"
PARTS = ("laws", "speed", "latency", "checked", "hostile", "both", "accuracy")


def main(arguments: list[str]) -> int:
    """Measure all parts, or some of them, and write the record and the plot."""
    parser = argparse.ArgumentParser(prog="python run.py bench pruning", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=f"measure these parts and keep the others' figures: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--data", type=Path, help="folder that holds images/cifar10 and images/fashion_mnist")
    parser.add_argument("--seeds", type=int, default=3, help="of the accuracy and both parts")
    options = parser.parse_args(arguments)
    if "accuracy" in options.only and options.data is None:
        parser.error("the accuracy part needs CIFAR-10 and Fashion-MNIST: name their folder with --data")
    if options.data is not None:
        os.environ[VARIABLE] = str(options.data)
    measures: dict[str, Callable[[], dict[str, object]]] = {
        "laws": laws,
        "speed": speed,
        "latency": latency,
        "checked": checked,
        "hostile": hostile,
        "both": partial(both, options.seeds),
        "accuracy": partial(accuracy, tuple(TASKS), options.seeds),
    }
    for part in PARTS:
        if part in options.only:
            print(f"{part} ...", flush=True)
            path = write_record("pruning", COMMAND, list(range(options.seeds)), measures[part]())
            plotted(path)
    return 0
