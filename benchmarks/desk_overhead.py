"""What a run costs by the desk's worker beside the bare generator: seconds a step, in turn, each in its own process.

`python -m benchmarks.desk_overhead STEPS ROUNDS` pulls a bare walk and prints the seconds it took.
"""

__all__ = ["overhead", "rounds_for"]

import os
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from benchmarks.desk_place import ROOT, place, until, worker_pid
from benchmarks.desk_study import Walk
from studio.desk.desk import Desk

WARM = 30


def overhead(pairs: int = 9, steps: int = 600) -> dict[str, object]:
    """Compare the desk's seconds a step with the bare generator's, at about 100 steps a second."""
    with place() as folder:
        rounds = rounds_for(0.01)
        desk = Desk((Walk,), folder)
        _by_desk(desk, Walk(steps=WARM, rounds=rounds))
        bare, desked = [], []
        for _ in range(pairs):
            bare.append(direct(steps, rounds))
            before = _cpu(worker_pid(folder))
            seconds, inside = _by_desk(desk, Walk(steps=steps, rounds=rounds))
            desked.append((seconds, _cpu(worker_pid(folder)) - before, inside))
    ratios, cpu, inside = (
        [100 * (by_desk / alone - 1) for by_desk, alone in zip(which, against, strict=True)]
        for which, against in zip(
            zip(*desked, strict=True), ([b[0] for b in bare], [b[1] for b in bare], [b[0] for b in bare]), strict=True
        )
    )
    return {
        "overhead_percent": round(statistics.median(ratios), 2),
        "overhead_percent_pairs": [round(ratio, 2) for ratio in ratios],
        "overhead_cpu_percent": round(statistics.median(cpu), 2),
        "overhead_cpu_percent_pairs": [round(ratio, 2) for ratio in cpu],
        "overhead_outside_steps_percent": round(statistics.median(100 * (d[0] / d[2] - 1) for d in desked), 2),
        "overhead_percent_inside_steps": round(statistics.median(inside), 2),
        "overhead_steps": steps,
        "overhead_rounds": rounds,
        "overhead_bare_seconds_a_step": round(statistics.median(b[0] for b in bare) / steps, 5),
        "overhead_desk_seconds_a_step": round(statistics.median(d[0] for d in desked) / steps, 5),
    }


def rounds_for(seconds: float) -> int:
    """Return the rounds of arithmetic that take so long a step here."""
    times = [direct(100, 60)[0] / 100 for _ in range(3)]
    return max(1, round(60 * seconds / statistics.median(times)))


def direct(steps: int, rounds: int) -> tuple[float, float]:
    """Return the seconds of a bare walk in a fresh process, by the clock and of the processor."""
    command = [sys.executable, "-m", "benchmarks.desk_overhead", str(steps), str(rounds)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout.split()
    return float(said[0]), float(said[1])


def _by_desk(desk: Desk, study: Walk) -> tuple[float, float]:
    """Return the seconds of a walk by the worker, from its first step to its end, and those inside its steps."""
    run_id = desk.submit(study)
    until(lambda: not desk.store.row(run_id).open, 300, nap=0.5)
    row = desk.store.row(run_id)
    if row.state != "done" or row.started is None or row.ended is None:
        raise RuntimeError(f"the walk was {row.state}: {row.error}")
    return row.ended - row.started, row.seconds


def _cpu(pid: int | None) -> float:
    """Return the seconds of the processor that a process has had."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _bare(study: Walk) -> tuple[float, float]:
    began, worked = time.perf_counter(), time.process_time()
    with closing(study.run()) as run:
        for _ in run:
            pass
    return time.perf_counter() - began, time.process_time() - worked


if __name__ == "__main__":
    _bare(Walk(steps=WARM, rounds=int(sys.argv[2])))
    print(*_bare(Walk(steps=int(sys.argv[1]), rounds=int(sys.argv[2]))))
