"""Molecules: exactness and speed of MMFF94, conformers against RDKit's, hostile input: all of `molecules.json`."""

__all__ = ["main"]

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rdkit import rdBase

from benchmarks.molecules_data import GEOM_SETS, SETS, missing
from benchmarks.molecules_exact import parity, throughput
from benchmarks.molecules_hostile import hostile
from benchmarks.molecules_plot import plot
from benchmarks.molecules_population import collapsed, population
from benchmarks.record import write_record

COMMAND = "OMP_NUM_THREADS=1 python run.py bench molecules --data FOLDER"
PARTS = ("parity", "throughput", "collapsed", "population", "hostile")
SHIPPED = ("throughput", "hostile")
NEEDED = (*(name for names in SETS.values() for name in names), *GEOM_SETS.values())


def main(arguments: list[str]) -> int:
    """Measure all parts, or some of them, and write the record."""
    parser = argparse.ArgumentParser(prog="python run.py bench molecules", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=f"measure these parts and keep the others' figures: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--data", type=Path, help="folder that holds bioactive.sdf.gz and its neighbours")
    parser.add_argument("--seeds", type=int, default=3, help="of the population part")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("I", "K"),
                        help="of the population part, measure and keep every K-th case from I on")  # fmt: skip
    options = parser.parse_args(arguments)
    lacks = missing(options.data, NEEDED) if set(options.only) - set(SHIPPED) else ""
    if lacks:
        parser.error(lacks)
    torch.set_num_threads(1)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "parity": partial(parity, options.data),
        "throughput": throughput,
        "collapsed": partial(collapsed, options.data),
        "population": partial(population, options.data, options.seeds, tuple(options.share)),
        "hostile": hostile,
    }
    with rdBase.BlockLogs():
        for part in PARTS:
            if part in options.only:
                print(f"{part} ...", flush=True)
                found = measures[part]()
                if found:
                    write_record("molecules", COMMAND, list(range(options.seeds)), found)
                if part == "population" and found:
                    plot()
    return 0
