"""FuseDream against its baselines under the judge, and how long a visitor waits: everything in `fusedream.json`."""

__all__ = ["main"]

import argparse

from benchmarks.fusedream_judge import SEEDS, judged
from benchmarks.fusedream_wait import waits
from benchmarks.record import write_record

COMMAND = "python run.py bench fusedream"


def main(arguments: list[str]) -> int:
    """Measure both parts, or one of them, and write the record."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--only", choices=("judge", "waits"), help="measure one part and keep the other's figures")
    options = parser.parse_args(arguments)
    if options.only != "waits":
        write_record("fusedream", COMMAND, list(range(SEEDS)), judged())
    if options.only != "judge":
        write_record("fusedream", COMMAND, list(range(SEEDS)), waits())
    return 0
