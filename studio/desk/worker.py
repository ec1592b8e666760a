"""A worker: the process that owns the device, takes runs from the queue one by one and pulls their generators.

Whoever wants runs to go on starts one (`tend`); it holds the lock of its slot as long as it lives, so a worker that was
killed is known by a free lock, whatever it was doing. It ends by itself when nothing has waited for a while.
"""

__all__ = ["addresses", "alive", "main", "tend"]

import argparse
import hashlib
import importlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_type_hints

from filelock import FileLock, Timeout

from studio.core.controls import clamp
from studio.core.devices import best_device
from studio.core.snapshots import Snapshot
from studio.desk.store import Row, Store
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.studies.study import Study

FRAME_GAP = 0.125
KEEP_GAP = 5.0
LOOK_GAP = 0.02
NAP = 0.02
IDLE = 120.0
STARTING = 60.0
ABANDONED = 90.0
# Workers this process started and has not yet seen end: polled, so that none stays behind as a zombie.
_children: list[subprocess.Popen[bytes]] = []


def alive(store: Store, slot: int) -> bool:
    """Return whether a worker holds the lock of a slot."""
    lock = FileLock(_lock_path(store, slot))
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True


def tend(store: Store, studies: Sequence[str], workers: int = 1) -> None:
    """Mark what dead workers left, and start workers where runs wait and slots are free.

    `studies` are the addresses of the studies a worker may run (see `addresses`).
    """
    for slot in range(workers):
        lock = FileLock(_lock_path(store, slot))
        try:
            with lock.acquire(blocking=False):
                store.interrupt(slot)
        except Timeout:
            continue
        if store.rows("state = 'queued'", most=1) and store.may_start(slot, STARTING):
            _start(store, slot, studies)


def addresses(catalog: Sequence[type[Study]]) -> list[str]:
    """Return where a worker finds each study, as module:class; one written in a notebook is a `ValueError`."""
    for study in catalog:
        if study.__module__ == "__main__" or "." in study.__qualname__:
            raise ValueError(f"{study.__name__} cannot be found by a worker: put it at the top of a module of its own")
    return [f"{study.__module__}:{study.__qualname__}" for study in catalog]


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until nothing has waited for two minutes; 0, also where another worker has the slot."""
    parser = argparse.ArgumentParser(prog="studio.desk.worker")
    parser.add_argument("home", type=Path)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--study", action="append", default=[], help="a study it may run, as module:class")
    options = parser.parse_args(arguments)
    store = Store(options.home)
    try:
        with FileLock(_lock_path(store, options.slot)).acquire(timeout=STARTING / 4):
            store.came_up(options.slot)
            store.interrupt(options.slot)
            store.sweep()
            _work(store, options.slot, _catalog(options.study))
    except Timeout:
        return 0
    return 0


def _work(store: Store, slot: int, catalog: dict[str, type[Study]]) -> None:
    idle = time.monotonic()
    while time.monotonic() - idle < IDLE:
        row = store.claim(slot, str(best_device()))
        if row is None:
            time.sleep(4 * NAP)
            continue
        _run(store, row, catalog)
        idle = time.monotonic()


def _run(store: Store, row: Row, catalog: dict[str, type[Study]]) -> None:
    """Run one row to its end; whatever goes wrong becomes its error sentence."""
    try:
        kind = catalog.get(row.study)
        if kind is None:
            raise ValueError(f"this studio has no study called {row.study!r}: update it")
        study = clamp(kind, row.knobs)
        start = started_from(store, row, kind)
        with closing(study.run(start)) as run:
            _Pull(store, row).through(run)
    except (ValueError, MemoryError) as error:
        short = "there is not enough memory for this run: choose smaller sizes"
        _failed(store, row, short if isinstance(error, MemoryError) else str(error))
    except Exception as error:
        traceback.print_exc()
        log = _log_path(store, row.slot or 0).name
        _failed(store, row, f"the run failed ({type(error).__name__}); the details are in {log} of the studio's folder")


def started_from(store: Store, row: Row, kind: type[Study]) -> Snapshot | None:
    """Return the snapshot a run goes on from, the newest of its parent; None for a fresh run."""
    if not row.parent:
        return None
    snapshot_kind, *_ = get_args(get_type_hints(kind.run)["return"])
    return snapshot_from(store.frame(row.parent), snapshot_kind)


class _Pull:
    """Pulls one generator, obeys what its watchers want, and writes frames."""

    def __init__(self, store: Store, row: Row) -> None:
        self.store, self.row = store, row
        self.worked, self.frame, self.taken = row.seconds, 0, 0
        self.due = self.look = 0.0
        self.keep = time.monotonic() + KEEP_GAP
        self.wish, self.singles, self.watched = row.wish, row.singles, time.time()
        self.told: Snapshot | None = None

    def through(self, run: Any) -> None:
        """Pull to the end, or until a stop is wanted; a run nobody watches may not stay held for ever."""
        snapshot: Snapshot | None = None
        state = "done"
        while True:
            self._look()
            if self.wish == "stop":
                state = "stopped"
                break
            if self.wish == "hold" and self.taken >= self.singles and snapshot is not None:
                if self._held(snapshot):
                    continue
                state = "interrupted"
                break
            following = self._pulled(run)
            if following is None:
                break
            snapshot = following
            if self.wish == "hold":
                self.taken += 1
            elif time.monotonic() >= self.due:
                self._tell(snapshot, "running", durable=time.monotonic() >= self.keep)
            if self.row.least and self.wish == "go":
                self._slow(snapshot)
        self._end(snapshot, state)

    def _look(self) -> None:
        if time.monotonic() >= self.look:
            self.wish, self.singles, watched = self.store.wishes(self.row.id)
            self.watched = max(self.watched, watched)
            self.look = time.monotonic() + LOOK_GAP

    def _pulled(self, run: Any) -> Snapshot | None:
        began = time.perf_counter()
        try:
            return next(run, None)
        finally:
            self.worked += time.perf_counter() - began

    def _held(self, snapshot: Snapshot) -> bool:
        """Wait a little between two steps; False where nobody has watched for too long."""
        if self.told is not snapshot:
            self._tell(snapshot, "held", durable=True)
        time.sleep(NAP)
        return time.time() - self.watched < ABANDONED

    def _slow(self, snapshot: Snapshot) -> None:
        nap = self.row.least / max(snapshot.total, 1)
        time.sleep(nap)
        self.worked += nap

    def _tell(self, snapshot: Snapshot, state: str, durable: bool) -> bytes:
        data = snapshot_bytes(snapshot)
        self.store.keep(self.row.id, data, durable)
        self.frame += 1
        self.store.update(
            self.row.id, state=state, step=snapshot.step, total=snapshot.total, phase=snapshot.phase,
            outcome=snapshot.outcome, seconds=self.worked, frame=self.frame,
        )  # fmt: skip
        self.told, self.due = snapshot, time.monotonic() + FRAME_GAP
        if durable:
            self.keep = time.monotonic() + KEEP_GAP
        return data

    def _end(self, snapshot: Snapshot | None, state: str) -> None:
        digest = ""
        if snapshot is not None:
            digest = hashlib.sha256(self._tell(snapshot, "running", durable=True)).hexdigest()
        self.store.update(self.row.id, state=state, ended=time.time(), digest=digest)


def _failed(store: Store, row: Row, sentence: str) -> None:
    store.update(row.id, state="failed", ended=time.time(), error=sentence)


def _start(store: Store, slot: int, studies: Sequence[str]) -> None:
    """Start a worker that outlives this process and writes what it has to say into the store's log."""
    command = [sys.executable, "-m", "studio.desk.worker", str(store.folder), "--slot", str(slot)]
    command += [part for study in studies for part in ("--study", study)]
    with _log_path(store, slot).open("ab") as log:
        _children[:] = [child for child in _children if child.poll() is None]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        _children.append(child)


def _catalog(studies: Sequence[str]) -> dict[str, type[Study]]:
    found = [getattr(importlib.import_module(module), name) for module, name in (each.split(":") for each in studies)]
    return {study.name: study for study in found}


def _lock_path(store: Store, slot: int) -> Path:
    return store.folder / f"worker-{slot}.lock"


def _log_path(store: Store, slot: int) -> Path:
    return store.folder / f"worker-{slot}.log"


if __name__ == "__main__":
    sys.exit(main())
