"""What a run costs by the desk's worker beside the bare generator: seconds a step, in turn, each in its own process.

`python -m benchmarks.desk_overhead` pulls a bare walk for every line "STEPS ROUNDS" and prints the seconds.
"""

__all__ = ["Bare", "bare", "overhead", "rounds_for"]

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.desk_place import ROOT, kill, place, until, worker_pid
from benchmarks.desk_study import Walk
from studio.desk.desk import Desk

WARM = 30


class Bare:
    """A process that pulls bare walks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, steps: int, rounds: int) -> tuple[float, float]:
        """Return the seconds of a bare walk, by the clock and of the processor."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{steps} {rounds}\n")
        self.process.stdin.flush()
        clock, processor = self.process.stdout.readline().split()
        return float(clock), float(processor)

    def rounds(self, seconds: float) -> int:
        """Return the rounds of arithmetic that take so long a step here."""
        return max(1, round(60 * seconds / statistics.median(self(60, 60)[0] / 60 for _ in range(5))))


@contextmanager
def bare() -> Generator[Bare, None, None]:
    """Start a process that pulls bare walks, and end it."""
    command = [sys.executable, "-m", "benchmarks.desk_overhead"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield Bare(process)
    finally:
        kill(process.pid)
        process.communicate()


def rounds_for(seconds: float) -> int:
    """Return the rounds of arithmetic that take so long a step here."""
    with bare() as pulled:
        return pulled.rounds(seconds)


def overhead(pairs: int = 25, steps: int = 300) -> dict[str, object]:
    """Compare the desk's seconds a step with the bare generator's, at about 100 steps a second.

    The pairs are many and short, as a machine shared with others is not equally fast all the time.
    """
    alone, desked = [], []
    with place() as folder, bare() as pulled:
        rounds = pulled.rounds(0.01)
        desk = Desk((Walk,), folder)
        _by_desk(desk, Walk(steps=WARM, rounds=rounds))
        for _ in range(pairs):
            alone.append(pulled(steps, rounds))
            before = _processor(worker_pid(folder))
            seconds, inside = _by_desk(desk, Walk(steps=steps, rounds=rounds))
            desked.append((seconds, _processor(worker_pid(folder)) - before, inside))
    ratios = [100 * (by_desk[0] / itself[0] - 1) for by_desk, itself in zip(desked, alone, strict=True)]
    processor = [100 * (by_desk[1] / itself[1] - 1) for by_desk, itself in zip(desked, alone, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if pairs > 1 else ratios * 3
    return {
        "overhead_percent": round(statistics.median(ratios), 2),
        "overhead_percent_quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
        "overhead_percent_pairs": [round(ratio, 2) for ratio in ratios],
        "overhead_processor_percent": round(statistics.median(processor), 2),
        "overhead_outside_steps_percent": round(statistics.median(100 * (d[0] / d[2] - 1) for d in desked), 2),
        "overhead_steps": steps,
        "overhead_rounds": rounds,
        "overhead_bare_seconds_a_step": round(statistics.median(a[0] for a in alone) / steps, 5),
        "overhead_desk_seconds_a_step": round(statistics.median(d[0] for d in desked) / steps, 5),
    }


def _by_desk(desk: Desk, study: Walk) -> tuple[float, float]:
    """Return the seconds of a walk by the worker, from its first step to its end, and those inside its steps."""
    run_id = desk.submit(study)
    until(lambda: not desk.store.row(run_id).open, 300, nap=0.2)
    row = desk.store.row(run_id)
    if row.state != "done" or row.started is None or row.ended is None:
        raise RuntimeError(f"the walk was {row.state}: {row.error}")
    return row.ended - row.started, row.seconds


def _processor(pid: int | None) -> float:
    """Return the seconds of the processor that a process has had."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _timed(study: Walk) -> tuple[float, float]:
    began, worked = time.perf_counter(), time.process_time()
    with closing(study.run()) as run:
        for _ in run:
            pass
    return time.perf_counter() - began, time.process_time() - worked


if __name__ == "__main__":
    _timed(Walk(steps=WARM, rounds=60))
    for line in sys.stdin:
        steps_, rounds_ = line.split()
        print(*_timed(Walk(steps=int(steps_), rounds=int(rounds_))), flush=True)
