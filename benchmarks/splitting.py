"""Growing networks by splitting neurons: exactness, laws, costs, toys and growth, all of `splitting.json`."""

__all__ = ["main"]

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.record import write_record
from benchmarks.splitting_function import function
from benchmarks.splitting_growth import growth, rates, using
from benchmarks.splitting_laws import laws
from benchmarks.splitting_speed import overhead, scoring
from benchmarks.splitting_toys import toys
from benchmarks.splitting_widths import digits_widths, energy

COMMAND = "OMP_NUM_THREADS=1 python run.py bench splitting --data FOLDER"
PARTS = ("function", "laws", "scoring", "overhead", "toys", "digits_widths", "energy", "rates", "growth")


def main(arguments: list[str]) -> int:
    """Measure all parts, or some of them, and write the record."""
    parser = argparse.ArgumentParser(prog="python run.py bench splitting", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=f"measure these parts and keep the others' figures: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--data", type=Path, help="folder that holds images/cifar10")
    parser.add_argument("--seeds", type=int, default=5, help="of the growth, energy and digits_widths parts")
    options = parser.parse_args(arguments)
    tasks = using(options.data) if {"growth", "rates"} & set(options.only) else ()
    measures: dict[str, Callable[[], dict[str, object]]] = {
        "function": function,
        "laws": laws,
        "scoring": scoring,
        "overhead": overhead,
        "toys": toys,
        "digits_widths": partial(digits_widths, options.seeds),
        "energy": partial(energy, options.seeds),
        "rates": partial(rates, tasks),
        "growth": partial(growth, tasks, options.seeds),
    }
    for part in PARTS:
        if part in options.only:
            print(f"{part} ...", flush=True)
            write_record("splitting", COMMAND, list(range(options.seeds)), measures[part]())
    return 0
