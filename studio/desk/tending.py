"""Looking after workers, from any process: who is alive, what dead ones left, where one has to be started.

Light to import (no torch), so that a worker can be on its way while the rest of a surface still loads.
"""

__all__ = ["SHIPPED", "addresses", "alive", "fingerprint", "lock_path", "tend"]

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from studio import __version__
from studio.desk.store import IS_OPEN, Store

STARTING = 60.0
STUCK = 30.0
SETTINGS = ("STUDIO_WEIGHTS", "STUDIO_DATA", "CUDA_", "OMP_", "MKL_", "TORCH_", "PYTORCH_")
# Where a worker finds the studies of the studio itself.
SHIPPED = "studio.catalog:CATALOG"
# Workers this process started, by folder and slot: polled, so that none stays behind as a zombie.
_children: dict[tuple[Path, int], subprocess.Popen[bytes]] = {}


def alive(store: Store, slot: int) -> bool:
    """Return whether a worker holds the lock of a slot."""
    lock = FileLock(lock_path(store, slot))
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True


def tend(store: Store, studies: Sequence[str], workers: int = 1, ahead: bool = False, warm: bool = False) -> None:
    """Mark what dead workers left, end one that is stuck, and start workers where runs wait and slots are free.

    `studies` are the addresses of the studies a worker may run (see `addresses`); `ahead` starts one although nothing
    waits yet, and keeps it; `warm` also has it load what the first study needs.
    """
    claimed = {row.slot for row in store.rows(IS_OPEN) if row.slot is not None}
    for slot in sorted(claimed | set(range(workers))):
        lock = FileLock(lock_path(store, slot))
        try:
            with lock.acquire(blocking=False):
                store.interrupt(slot)
        except Timeout:
            if slot < workers:
                _unstick(store, slot)
                if ahead or warm:
                    store.want(slot)
            continue
        _bury(store, slot)
        waits = ahead or warm or store.waiting()
        if slot < workers and waits and store.may_start(slot, STARTING):
            _start(store, slot, studies, warm)


def addresses(catalog: Sequence[type]) -> list[str]:
    """Return where a worker finds each study, as module:class; one written in a notebook is a `ValueError`."""
    for study in catalog:
        if study.__module__ == "__main__" or "." in study.__qualname__:
            raise ValueError(f"{study.__name__} cannot be found by a worker: put it at the top of a module of its own")
    return [f"{study.__module__}:{study.__qualname__}" for study in catalog]


def fingerprint(catalog: Sequence[type]) -> str:
    """Return a word for the code and the settings of this process: workers of another one are not given its runs."""
    files = {Path(sys.modules[study.__module__].__file__ or "") for study in catalog}
    files |= set(Path(__file__).parents[1].rglob("*.py"))
    parts = [__version__, sys.prefix]
    parts += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)]
    parts += [f"{path} {path.stat().st_mtime_ns}" for path in sorted(files) if path.is_file()]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _bury(store: Store, slot: int) -> None:
    """Where a worker of ours ended before it came up, say so to those who wait."""
    child = _children.get((store.folder, slot))
    if child is not None and child.poll() is not None:
        del _children[store.folder, slot]
        if child.returncode:
            store.give_up(
                slot, f"no worker could be started: worker-{slot}.log in the studio's folder says why; it waits"
            )


def _unstick(store: Store, slot: int) -> None:
    """Kill a worker whose run was stopped, or used up its time, long ago: it hangs inside a step."""
    now = time.time()
    for row in store.rows("slot = ? AND state IN ('running','held')", (slot,)):
        asked = row.wish in ("stop", "leave") and now - (row.wished or now) > STUCK
        since = max(row.started or now, row.wished or 0.0)
        late = row.state == "running" and now - since > 90 * row.minutes + STUCK
        _, _, pid = store.slot(slot)
        if (asked or late) and pid is not None and pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _start(store: Store, slot: int, studies: Sequence[str], warm: bool) -> None:
    """Start a worker that outlives this process and writes what it has to say into the store's log."""
    command = [sys.executable, "-P", "-m", "studio.desk.worker", str(store.folder), "--slot", str(slot)]
    command += ["--warm"] if warm else []
    command += [part for study in studies for part in ("--study", study)]
    with (store.folder / f"worker-{slot}.log").open("wb") as log:
        _children[store.folder, slot] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path or ".") for path in sys.path)},
        )  # fmt: skip


def lock_path(store: Store, slot: int) -> Path:
    """Return the file whose lock a slot's worker holds."""
    return store.folder / f"worker-{slot}.lock"
