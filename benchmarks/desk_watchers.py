"""Many watchers of one run: whether each gets its end, and what they take from the run's speed."""

__all__ = ["watchers"]

import json
import statistics
import subprocess
import sys
import threading
from contextlib import suppress

from benchmarks.desk_overhead import rounds_for
from benchmarks.desk_place import ROOT, Server, place, server, until
from benchmarks.desk_study import Walk
from studio.desk.desk import Desk
from studio.desk.store import Row


def watchers(count: int = 100, few: int = 20, pairs: int = 5, steps: int = 600) -> dict[str, object]:
    """Watch one run from `count` pages, then compare the pace of a busy run with and without `few` watchers."""
    with place() as folder:
        rounds = rounds_for(0.01)
        with server("--each", "0") as page:
            desk = Desk((Walk,), folder)
            _busy(desk, None, 0, Walk(steps=50, rounds=rounds))
            _, found = _busy(desk, page, count, Walk(steps=min(steps, 400), nap=0.02))
            rates = _rates(desk, page, few, pairs, Walk(steps=steps, rounds=rounds))
        beside = _rates(desk, None, few, pairs, Walk(steps=steps, rounds=rounds))
    good = [one for one in found if one["completed"] and one["done"] and one["step"] == one["total"]]
    return {
        "watchers": count,
        "watchers_missed_last": count - len(good),
        "watchers_saw_it_live": sum(one["live"] > 0 for one in found),
        "watchers_frames_median": statistics.median(one["frames"] for one in found) if found else 0,
        "watched_by": few,
        "watched_steps": steps,
        **_compared("watchers", *rates),
        **_compared("desk_watchers", *beside),
    }


def _compared(name: str, alone: list[float], watched: list[float]) -> dict[str, object]:
    """Return the pace with watchers as a percentage of that without, from the medians, and pair by pair."""
    pairs = [100 * a / b for a, b in zip(alone, watched, strict=True)]
    return {
        f"{name}_rate_percent": round(100 * statistics.median(alone) / statistics.median(watched), 1),
        f"{name}_rate_percent_pairs": [round(pair, 1) for pair in pairs],
        f"{name}_seconds_a_step_alone": round(statistics.median(alone), 5),
        f"{name}_seconds_a_step_watched": round(statistics.median(watched), 5),
    }


def _rates(desk: Desk, page: Server | None, few: int, pairs: int, study: Walk) -> tuple[list[float], list[float]]:
    """Return the seconds a step takes without and with watchers (of the page, or of the desk), in turn."""
    alone, watched = [], []
    for _ in range(pairs):
        for seconds, many in ((alone, 0), (watched, few)):
            row, found = _busy(desk, page, many, study)
            assert row.started is not None and row.ended is not None
            seconds.append((row.ended - row.started) / study.steps)
            if page is not None and sum(one["live"] > 0 for one in found) < many:
                raise RuntimeError("not every watcher saw the run going on")
    return alone, watched


def _busy(desk: Desk, page: Server | None, count: int, study: Walk) -> tuple[Row, list[dict[str, int]]]:
    """Run a walk with `count` watchers that came while it still waited; return its row and what they saw."""
    before = desk.submit(Walk(steps=15, nap=0.1))
    run_id = desk.submit(study)
    found: list[dict[str, int]] = []
    if page is not None and count:
        command = [sys.executable, "-m", "benchmarks.desk_watching", page.address, run_id, str(count)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            said, _ = process.communicate(timeout=300)
            if process.returncode:
                raise RuntimeError("the watchers' process failed: its message is above")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        found = json.loads(said)
    elif count:
        threads = [threading.Thread(target=lambda: [None for _ in desk.watch(run_id)]) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
    until(lambda: not desk.store.row(run_id).open and not desk.store.row(before).open, 300, nap=0.5)
    return desk.store.row(run_id), found
