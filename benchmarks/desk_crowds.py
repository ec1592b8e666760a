"""Crowds at the desk: many who submit at once, a queue that is full, and many who change their mind."""

__all__ = ["burst", "cancels", "queue_burst", "submitters"]

import json
import random
import threading
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.desk_place import Server, place, server, until, worker_pid
from benchmarks.desk_study import Trail, Walk
from studio.desk.desk import Desk
from studio.desk.policy import Policy
from studio.desk.store import Row, StoreError
from studio.files.frames import snapshot_from

FULL = "runs are waiting already"


def submitters(count: int = 50, steps: int = 10, programs: int = 5) -> dict[str, object]:
    """Have `count` threads of some programs hand in a run each at the same moment, to one worker."""
    with place() as folder, server() as page:
        desk = Desk((Walk,), folder)
        answers = _at_once(page, [_recipe(steps=steps, seed=number) for number in range(count)], programs)
        ids = [answer for answer, _ in answers if isinstance(answer, str)]
        refusals = [str(answer) for answer, _ in answers if not isinstance(answer, str)]
        _over(desk)
        rows = _all_rows(desk)
    return {
        "submitters": count,
        "submitters_finished": sum(row.state == "done" and row.step == steps for row in rows),
        "submitters_in_order": int(_in_order(rows)),
        "twice": len(ids) - len(set(ids)) + max(0, len(rows) - len(ids)),
        "submitters_slowest_s": round(max(seconds for _, seconds in answers), 3),
        "submitters_refused": refusals[:5],
    }


def burst(count: int = 200, waiting: int = 64, programs: int = 8) -> dict[str, object]:
    """Hand in `count` runs at once while the worker is busy: as many as fit wait, the rest get a sentence.

    Once through the page, once at the desk of this process.
    """
    with place() as folder, server("--each", "0") as page:
        desk = Desk((Walk,), folder, policy=Policy(waiting=waiting))
        busy = desk.submit(Walk(steps=100_000, nap=0.05))
        until(lambda: desk.store.row(busy).state == "running")
        answers = _at_once(page, [_recipe(steps=3, seed=number) for number in range(count)], programs)
        taken = [answer for answer, _ in answers if isinstance(answer, str)]
        refused = [answer for answer, _ in answers if isinstance(answer, ValueError) and FULL in str(answer)]
        queued, running = desk.store.waiting(), desk.store.row(busy).state
        desk.stop(busy)
        _over(desk)
        done = sum(desk.store.row(run_id).state == "done" for run_id in taken)
        in_order = _in_order([row for row in _all_rows(desk) if row.id != busy])
    seconds = sorted(seconds for _, seconds in answers)
    inside = queue_burst(count, waiting)
    return inside | {
        "burst": count,
        "burst_queue": waiting,
        "burst_waiting": queued if running == "running" else -1,
        "burst_refused": len(refused),
        "burst_sentence": str(refused[0]) if refused else "",
        "burst_answered_otherwise": [str(a) for a, _ in answers if not isinstance(a, str) and a not in refused][:5],
        "burst_finished": done,
        "burst_in_order": int(in_order),
        "burst_median_s": round(seconds[len(seconds) // 2], 3),
        "burst_slowest_s": round(seconds[-1], 3),
    }


def queue_burst(count: int = 200, waiting: int = 64) -> dict[str, object]:
    """Hand in `count` runs at once from threads of one process, at its desk."""
    with place() as folder:
        desk = Desk((Walk,), folder, policy=Policy(waiting=waiting))
        busy = desk.submit(Walk(steps=100_000, nap=0.05))
        until(lambda: desk.store.row(busy).state == "running")
        found: list[tuple[bool, float]] = [(False, 1e9)] * count
        ready = threading.Barrier(count)

        def send(index: int) -> None:
            ready.wait()
            began = time.monotonic()
            try:
                desk.submit(Walk(steps=3, seed=index))
                taken = True
            except StoreError as error:
                taken = FULL not in str(error)
            found[index] = taken, time.monotonic() - began

        threads = [threading.Thread(target=send, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        queued = desk.store.waiting()
    return {
        "burst_desk_waiting": queued,
        "burst_desk_refused": sum(not taken for taken, _ in found),
        "burst_desk_slowest_s": round(max(seconds for _, seconds in found), 3),
    }


def cancels(count: int = 200, warm: int = 20, seed: int = 0) -> dict[str, object]:
    """Stop `count` runs at random steps; what they found is kept, and the worker grows no larger."""
    dice, kept, before, notes = random.Random(seed), 0, 0, []
    with place() as folder:
        desk = Desk((Walk,), folder)
        for number in range(warm + count):
            run_id = desk.submit(Walk(steps=5000, nap=0.002, seed=number, megabytes=0.5))
            wanted = dice.randint(1, 60)
            until(lambda: desk.store.row(run_id).step >= wanted, nap=0.005)  # noqa: B023
            desk.stop(run_id)
            until(lambda: not desk.store.row(run_id).open, nap=0.005)  # noqa: B023
            if number >= warm:
                good, said = _kept(desk.store.row(run_id), desk)
                kept += good
                notes += said
            elif number == warm - 1:
                before = _rss(worker_pid(folder))
            desk.store.delete(run_id)
        after = _rss(worker_pid(folder))
    return {
        "cancels": count,
        "cancels_seed": seed,
        "cancels_kept": kept,
        "cancel_rss_before_mb": round(before / 2**10, 1),
        "cancel_rss_after_mb": round(after / 2**10, 1),
        "cancel_rss_percent": round(100 * (after / before - 1), 2),
        "cancel_notes": notes[:5],
    }


def _kept(row: Row, desk: Desk) -> tuple[bool, list[str]]:
    """Return whether a stopped run kept what it had, and what is wrong where it did not."""
    try:
        trail = snapshot_from(desk.store.frame(row.id), Trail)
    except ValueError as error:
        return False, [f"{row.state} at {row.step}: {error}"]
    good = row.state == "stopped" and trail.step == row.step > 0 and bool((trail.ballast == trail.step).all())
    return good, [] if good else [f"{row.state} at step {row.step}, kept step {trail.step}"]


def _at_once(page: Server, recipes: list[str], programs: int) -> list[tuple[Any, float]]:
    """Send every recipe from a thread of its own, all at the same moment; return the answers and their seconds.

    They come from so many programs, each with a session that the page knows already.
    """
    found: list[tuple[Any, float]] = [(ValueError("no answer came"), 1e9)] * len(recipes)
    ready = threading.Barrier(len(recipes))
    sessions = [uuid.uuid4().hex for _ in range(programs)]
    for session in sessions:
        page.post("status", "", session=session)

    def send(index: int) -> None:
        ready.wait()
        found[index] = page.post("submit", recipes[index], session=sessions[index % programs])

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(recipes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


def _over(desk: Desk, seconds: float = 300.0) -> None:
    """Wait, tending, until no run is open."""

    def over() -> bool:
        desk.tend(1.0)
        return not desk.store.rows("state IN ('queued','running','held')")

    until(over, seconds, nap=0.1)


def _all_rows(desk: Desk) -> list[Row]:
    """Return every run in the order of the numbers it was given."""
    return list(reversed(desk.store.rows(most=100_000)))


def _in_order(rows: list[Row]) -> bool:
    """Return whether runs began in the order of their numbers, each after the one before had ended."""
    times = [(row.started or 0.0, row.ended or 0.0) for row in rows]
    return all(one[1] <= two[0] for one, two in pairwise(times))


def _recipe(**knobs: float) -> str:
    return json.dumps({"study": Walk.name, "knobs": knobs})


def _rss(pid: int | None) -> int:
    """Return the kilobytes of memory a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
