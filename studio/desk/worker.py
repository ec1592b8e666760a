"""A worker: the process that owns the device, takes runs from the queue one by one and pulls their generators.

It holds the lock of its slot as long as it lives, so a worker that was killed is known by a free lock, whatever it was
doing. It ends by itself when nothing has waited for a while, or when somebody hands in a run from newer code.
"""

__all__ = ["Inside", "main"]

import argparse
import importlib
import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from studio.core.devices import best_device
from studio.core.snapshots import MAX_BYTES
from studio.desk.pull import pull
from studio.desk.store import Store
from studio.desk.tending import STARTING, fingerprint, lock_path
from studio.studies.study import Study

NAP = 0.05
IDLE = 120.0
ROOM = 2 * MAX_BYTES
IDLE_INSIDE = 20.0
_inside = itertools.count(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until nothing has waited for two minutes; 0, also where another worker has the slot."""
    parser = argparse.ArgumentParser(prog="studio.desk.worker")
    parser.add_argument("home", type=Path)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--warm", action="store_true", help="take a first step ahead, so that weights are loaded")
    parser.add_argument("--study", action="append", default=[], help="a study it may run, as module:class")
    options = parser.parse_args(arguments)
    if "OMP_NUM_THREADS" not in os.environ:
        # A core is left to those who watch: threads that wait for each other cost a run more than one of them brings.
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    store = Store(options.home)
    try:
        with FileLock(lock_path(store, options.slot)).acquire(timeout=STARTING / 4):
            studies = _catalog(options.study)
            store.came_up(options.slot, fingerprint(tuple(studies.values())))
            store.interrupt(options.slot)
            store.sweep()
            if options.warm and not store.waiting():
                _warm(next(iter(studies.values())))
            with store.staying_open():
                _serve(store, options.slot, studies, IDLE)
    except Timeout:
        return 0
    return 0


class Inside:
    """A worker in this process, for studies that no other process can import (those written in a notebook)."""

    def __init__(self, store: Store, studies: Mapping[str, type[Study]]) -> None:
        self.slot = os.getpid() * 1000 + next(_inside)
        self._store, self._studies = store, studies
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See to it that a thread works on this worker's runs; it ends when nothing has waited for a while."""
        if self._thread is None or not self._thread.is_alive():
            up = threading.Event()
            self._thread = threading.Thread(target=self._serve, args=(up,), daemon=True)
            self._thread.start()
            up.wait()

    def _serve(self, up: threading.Event) -> None:
        path = lock_path(self._store, self.slot)
        with FileLock(path):
            up.set()
            with self._store.staying_open():
                _serve(self._store, self.slot, self._studies, IDLE_INSIDE)
        path.unlink(missing_ok=True)


def _serve(store: Store, slot: int, studies: Mapping[str, type[Study]], idle: float) -> None:
    # The number of threads is part of what a replay needs: sums come out differently in the last bits.
    device, since = f"{best_device()}, {torch.get_num_threads()} threads", time.monotonic()
    while True:
        # On a full disk every run would fail in its turn: those that wait go on waiting.
        room = shutil.disk_usage(store.folder).free > ROOM
        row = store.claim(slot, device, tuple(studies)) if room else None
        if row is not None:
            pull(store, row, studies)
            since = time.monotonic()
            continue
        leave, wanted, _ = store.slot(slot)
        if leave or (time.monotonic() - since > idle and time.time() - wanted > idle):
            return
        time.sleep(NAP)


def _warm(study: type[Study]) -> None:
    """Take the first step of a study, so that what it loads is there at the first run."""
    with suppress(ValueError, OSError), closing(study().run()) as run:
        next(run, None)


def _catalog(studies: Sequence[str]) -> dict[str, type[Study]]:
    """Return the studies at addresses, each a class or a tuple of classes, by name."""
    found: list[type[Study]] = []
    for module, name in (address.split(":") for address in studies):
        there = getattr(importlib.import_module(module), name)
        found += there if isinstance(there, tuple) else (there,)
    return {study.name: study for study in found}


if __name__ == "__main__":
    sys.exit(main())
