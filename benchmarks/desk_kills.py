"""Workers and servers killed at random moments: what the store holds afterwards, and whether each run is found."""

__all__ = ["server_kills", "worker_kills"]

import hashlib
import json
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.desk_place import Server, kill, place, start_server, until, worker_pid
from benchmarks.desk_study import Trail, Walk, ending
from studio.desk.desk import Desk
from studio.desk.store import Row
from studio.desk.tending import alive
from studio.files.frames import snapshot_from

LATEST = 1.5
LONG = {"steps": 500, "nap": 0.005, "megabytes": 2.0}


@dataclass
class Tally:
    """What the kills left."""

    kills: int = 0
    writing: int = 0
    unreadable: int = 0
    read: int = 0
    wrong_state: int = 0
    finished_before: int = 0
    nothing_kept: int = 0
    resumed: int = 0
    equal: int = 0
    queued: list[str] = field(default_factory=list)
    lost: int = 0
    spoiled: list[str] = field(default_factory=list)


def worker_kills(kills: int = 100, resumes: int = 25, seed: int = 0) -> dict[str, object]:
    """Kill the worker again and again while it writes snapshots of some megabytes, and look at what is left."""
    dice, tally = random.Random(seed), Tally()
    with place() as folder:
        desk = Desk((Walk,), folder)
        for number in range(kills):
            _killed(
                desk, folder, dice, tally, number, resume=number * resumes // kills != (number + 1) * resumes // kills
            )
        ends = [desk.store.row(run_id) for run_id in _ended(desk, tally.queued)]
        tally.lost += sum(row.state != "done" for row in ends) + len(tally.queued) - len(ends)
        unswept = _unswept(desk, folder)
    return {
        "worker_kills": tally.kills,
        "worker_kills_seed": seed,
        "worker_kills_in_a_write": tally.writing,
        "files_read_after_kills": tally.read,
        "unreadable_files": tally.unreadable,
        "killed_runs_in_a_wrong_state": tally.wrong_state,
        "killed_after_the_end": tally.finished_before,
        "killed_before_a_first_snapshot": tally.nothing_kept,
        "queued_behind_kills": len(tally.queued),
        "lost_runs": tally.lost,
        "resumed": tally.resumed,
        "resumed_bytes_equal": tally.equal,
        "parts_left_unswept": unswept,
        "kill_notes": tally.spoiled[:10],
    }


def _killed(desk: Desk, folder: Path, dice: random.Random, tally: Tally, number: int, resume: bool) -> None:
    """Let one run begin with others behind it, kill its worker, look at the store, and perhaps go on with the run."""
    study = Walk(seed=number, **LONG)
    run_id = desk.submit(study)
    behind = [desk.submit(Walk(seed=1000 + 2 * number + one, steps=3)) for one in range(2)]
    tally.queued += behind
    until(lambda: _tended(desk, run_id).state != "queued")
    pid = worker_pid(folder)
    time.sleep(dice.uniform(0.0, LATEST))
    if number % 2:
        _await_part(folder, run_id)
    if pid is None:
        tally.spoiled.append(f"kill {number}: no worker was there")
        return
    kill(pid)
    tally.kills += 1
    until(lambda: not alive(desk.store, 0))
    tally.writing += bool(_parts(folder, run_id))
    desk.tend()
    row = desk.store.row(run_id)
    tally.finished_before += row.state == "done"
    if row.state not in ("interrupted", "done"):
        tally.wrong_state += 1
        tally.spoiled.append(f"kill {number}: the run was {row.state} ({row.error})")
    _read_all(folder, tally)
    if resume and row.state == "interrupted":
        _resumed(desk, row, study, tally)
    if not desk.store.row(run_id).open:
        desk.store.delete(run_id)


def _tended(desk: Desk, run_id: str) -> Row:
    desk.tend(1.0)
    return desk.store.row(run_id)


def _parts(folder: Path, run_id: str) -> list[str]:
    """Return the half-written files of a run."""
    return [name for name in os.listdir(folder / "runs") if name.startswith(f".{run_id}") and name.endswith(".part")]


def _await_part(folder: Path, run_id: str, seconds: float = 1.0) -> None:
    """Wait until a half-written file of a run stands in the store."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not _parts(folder, run_id):
        pass


def _read_all(folder: Path, tally: Tally) -> None:
    """Read every file of the store; the ballast of a walk says whether it is of one piece."""
    for path in (folder / "runs").glob("*.safetensors"):
        with suppress(FileNotFoundError):
            tally.read += 1
            try:
                trail = snapshot_from(path.read_bytes(), Trail)
                whole = bool((trail.ballast == trail.step).all())
            except ValueError:
                whole = False
            if not whole:
                tally.unreadable += 1
                tally.spoiled.append(f"{path.name} is not whole")


def _resumed(desk: Desk, row: Row, study: Walk, tally: Tally) -> None:
    try:
        second = desk.resume(row.id)
    except ValueError:
        tally.nothing_kept += 1
        return
    tally.resumed += 1
    _ended(desk, [second])
    end = desk.store.row(second)
    same = end.state == "done" and end.digest == hashlib.sha256(ending(study)).hexdigest()
    tally.equal += same
    if not same:
        tally.spoiled.append(f"resumed from step {row.step}: {end.state} at {end.step} ({end.error})")
    desk.store.delete(second)


def _ended(desk: Desk, ids: list[str], seconds: float = 600.0) -> list[str]:
    """Wait, tending, until none of the runs is open; return those the store still knows."""
    known = {row.id for row in desk.store.rows(most=100_000)}
    found = [run_id for run_id in ids if run_id in known]

    def over() -> bool:
        desk.tend(1.0)
        return not {row.id for row in desk.store.rows("state IN ('queued','running','held')")} & set(found)

    until(over, seconds, nap=0.05)
    return found


def _unswept(desk: Desk, folder: Path) -> int:
    """Make what half-written files there are look old, have a worker begin, and return how many it left."""
    pid = worker_pid(folder)
    if pid is not None:
        kill(pid)
        until(lambda: not alive(desk.store, 0))
    for path in (folder / "runs").glob(".*.part"):
        os.utime(path, (time.time() - 600, time.time() - 600))
    _ended(desk, [desk.submit(Walk(steps=3))])
    return len(list((folder / "runs").glob(".*.part")))


def server_kills(kills: int = 20, each: int = 4, seed: int = 0) -> dict[str, object]:
    """Kill the page's server with runs in its queue, serve the folder anew, and look for every run there."""
    dice, ids, lost, notes = random.Random(seed), [], 0, []
    with place() as folder:
        desk = Desk((Walk,), folder)
        page = start_server("--each", "0")
        try:
            for number in range(kills):
                for one in range(each):
                    knobs = {"steps": 60, "nap": 0.01, "seed": 100 * number + one}
                    answer, _ = page.post("submit", json.dumps({"study": "walk", "knobs": knobs}))
                    if isinstance(answer, str):
                        ids.append(answer)
                    else:
                        notes.append(f"kill {number}: {answer}")
                time.sleep(dice.uniform(0.0, 1.0))
                kill(page.process.pid)
                page.process.wait()
                page = start_server("--each", "0")
                lost += _missing(page, desk, ids, notes)
            known = _ended(desk, ids)
        finally:
            kill(page.process.pid)
        rows = [desk.store.row(run_id) for run_id in known]
        lost += len(ids) - len(rows) + sum(row.state != "done" for row in rows)
        started = [row.started or 0.0 for row in rows]
    return {
        "server_kills": kills,
        "server_kills_seed": seed,
        "server_kill_runs": len(ids),
        "server_lost_runs": lost + len(notes),
        "server_runs_in_order": int(started == sorted(started)),
        "server_kill_notes": notes[:10],
    }


def _missing(page: Server, desk: Desk, ids: list[str], notes: list[str]) -> int:
    """Return how many runs the new server does not know, or knows in a state they should not be in."""
    missing = 0
    for run_id in ids[-12:]:
        answer, _ = page.post("status", run_id)
        good = isinstance(answer, dict) and answer["state"] in ("queued", "running", "done")
        missing += not good
        if not good:
            notes.append(f"{run_id}: {answer}")
    kept = [row.id for row in reversed(desk.store.rows(most=100_000))]
    return missing + (kept != ids)
