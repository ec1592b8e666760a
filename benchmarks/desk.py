"""Runs that survive reloads, killed workers and servers, crowds and full disks; what the desk costs: `desk.json`."""

__all__ = ["BARS", "PARTS", "main"]

import argparse
import signal
import sys
import time
from collections.abc import Callable

from benchmarks.desk_crowds import burst, cancels, submitters
from benchmarks.desk_faults import disks, odd_folders
from benchmarks.desk_kills import server_kills, worker_kills
from benchmarks.desk_overhead import overhead
from benchmarks.desk_pages import reload, surfaces
from benchmarks.desk_recipes import recipes
from benchmarks.desk_watchers import watchers
from benchmarks.record import write_record

COMMAND = "python run.py bench desk"
Figures = dict[str, object]
PARTS: dict[str, Callable[[bool], Figures]] = {
    "reload": lambda quick: reload(1, 2, 300) if quick else reload(),
    "worker_kills": lambda quick: worker_kills(10, 3) if quick else worker_kills(),
    "server_kills": lambda quick: server_kills(2) if quick else server_kills(),
    "submitters": lambda quick: submitters(5, programs=1) if quick else submitters(),
    "watchers": lambda quick: watchers(10, 2, 1, 300) if quick else watchers(),
    "burst": lambda quick: burst() | (cancels(20, 10) if quick else cancels()),
    "faults": lambda quick: disks(2 if quick else 20) | odd_folders() | recipes(30 if quick else 300),
    "overhead": lambda quick: overhead(3, 100) if quick else overhead(),
    "surfaces": lambda quick: surfaces(),
}
# What every figure must be: the same as another figure, or a number, or below or above one.
BARS: dict[str, tuple[tuple[str, str, str | float], ...]] = {
    "reload": (("reattached", "==", "reload_trials"), ("reload_bytes_equal", "==", "reload_runs")),
    "worker_kills": (
        ("unreadable_files", "==", 0), ("lost_runs", "==", 0), ("killed_runs_in_a_wrong_state", "==", 0),
        ("resumed_bytes_equal", "==", "resumed"), ("parts_left_unswept", "==", 0),
    ),
    "server_kills": (("server_lost_runs", "==", 0), ("server_runs_in_order", "==", 1)),
    "submitters": (("submitters_finished", "==", "submitters"), ("submitters_in_order", "==", 1), ("twice", "==", 0)),
    "watchers": (
        ("watchers_missed_last", "==", 0), ("watchers_saw_it_live", "==", "watchers"),
        ("watchers_rate_percent", ">=", 90), ("desk_watchers_rate_percent", ">=", 90),
    ),
    "burst": (
        ("burst_waiting", "==", "burst_queue"), ("burst_finished", "==", "burst_queue"), ("burst_slowest_s", "<", 1),
        ("burst_desk_waiting", "==", "burst_queue"), ("burst_desk_slowest_s", "<", 1),
        ("cancels_kept", "==", "cancels"), ("cancel_rss_percent", "<=", 2),
    ),
    "faults": (
        ("disk_full_damaged", "==", 0), ("disk_full_unclear", "==", 0),
        ("disk_full_real_queue_went_on", "==", "disk_full_real_points"),
        ("unicode_folder_works", "==", 1), ("read_only_refused", "==", 1), ("broken_crashes", "==", 0),
    ),
    "overhead": (("overhead_percent", "<", 5),),
    "surfaces": (("terminal_run_in_browser", "==", 1), ("terminal_run_in_notebook", "==", 1)),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure all parts or some, keep the figures, and name the bars that were missed; the status says whether any."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="keep the others' figures")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to try it out; writes no record")
    options = parser.parse_args(arguments)
    # What was started is ended, also where this is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missed = []
    for part in options.only:
        began = time.monotonic()
        figures = PARTS[part](options.quick)
        print(f"{part} ({time.monotonic() - began:.0f} s)", flush=True)
        for name, value in figures.items():
            print(f"  {name}: {value}", flush=True)
        if not options.quick:
            write_record("desk", COMMAND, [0], figures)
        missed += misses(part, figures)
    for sentence in missed:
        print(f"missed: {sentence}", flush=True)
    return 1 if missed else 0


def misses(part: str, figures: Figures) -> list[str]:
    """Return a sentence for every bar of a part that its figures do not reach."""
    found = []
    for name, sign, wanted in BARS[part]:
        value, bar = _number(figures.get(name, "nothing")), _number(figures.get(str(wanted), wanted))
        good = {"==": value == bar, "<": value < bar, "<=": value <= bar, ">=": value >= bar}[sign]
        if not good:
            found.append(f"{name} is {figures.get(name)}, not {sign} {wanted}")
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
