"""The desk behind every surface: hand a study in, watch it from anywhere, hold, step, stop, resume, repeat.

Runs live in the store and are worked on by a worker process, so a surface may come and go: whoever knows a run's id can
watch it, at once or later, alone or with others.
"""

__all__ = ["Desk"]

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

from studio import __version__
from studio.core.controls import clamp, knobs
from studio.core.snapshots import Snapshot
from studio.desk.local import Frame
from studio.desk.store import OPEN, Row, Store, StoreError, home
from studio.desk.worker import addresses, tend
from studio.files.frames import snapshot_from
from studio.studies.study import Study

MOST_WAITING = 64
NAP = 0.04
STOPPED = ("stopped", "interrupted", "failed")
TEND_GAP = 1.0
WATCHED_GAP = 5.0


class Desk:
    """Runs by id, in the store of a folder (the user's own, where none is named) and worked on by `workers` processes.

    `catalog` holds the studies this desk takes; their classes must be importable, for the worker is another process.
    Methods that take a run's id raise `KeyError` for an unknown one, and do nothing to a run that has ended, unless
    they say otherwise.
    """

    def __init__(self, catalog: Sequence[type[Study]], folder: Path | None = None, workers: int = 1) -> None:
        self.store = Store(folder or home())
        self._workers, self._addresses = workers, addresses(catalog)
        self._studies = {study.name: study for study in catalog}
        self._tended = 0.0

    def submit(self, study: Study, owner: str = "", parent: str = "", least: float = 0.0) -> str:
        """Put a study at the end of the queue and return the run's id; `parent` is a run to go on from.

        `least` spreads a short run over that many seconds. A full queue is a `StoreError` in one sentence.
        """
        if self._studies.get(study.name) is not type(study):
            raise ValueError(
                f"{study.name} is not in this studio's catalogue: add it there, or call its run() yourself"
            )
        run_id = self.store.add(study.name, knobs(study), __version__, owner, parent, least, MOST_WAITING)
        self.tend()
        return run_id

    def study(self, row: Row) -> Study:
        """Return the study of a run, knobs that no longer exist ignored and values clamped."""
        if row.study not in self._studies:
            raise ValueError(f"this studio has no study called {row.study!r}: update it")
        return clamp(self._studies[row.study], row.knobs)

    def watch(self, run_id: str, per_second: float = 8.0) -> Generator[Frame, None, None]:
        """Yield the newest frame at most `per_second` times a second, and always the last; closing it changes nothing.

        Waits while the run is queued. Raises `ValueError` with the run's sentence where it failed or left nothing.
        """
        seen, told, marked, due = -1, "", 0.0, 0.0
        while True:
            row = self.store.row(run_id)
            over = row.state not in OPEN
            if over or (row.frame != seen and time.monotonic() >= due) or (row.state == "held" and told != "held"):
                if row.frame:
                    yield Frame(self.snapshot(row), row.seconds, row.state == "held", over, row.state in STOPPED)
                    due = time.monotonic() + 1 / per_second
                seen, told = row.frame, row.state
                if row.state == "failed":
                    raise ValueError(row.error)
                if over:
                    return
            if time.monotonic() >= marked:
                self.store.update(run_id, watched=time.time())
                marked = time.monotonic() + WATCHED_GAP
            self.tend(TEND_GAP)
            time.sleep(NAP)

    def snapshot(self, row: Row) -> Snapshot:
        """Return the newest snapshot of a run; a `ValueError` where there is none or it is damaged."""
        kind, *_ = get_args(get_type_hints(type(self.study(row)).run)["return"])
        return snapshot_from(self.store.frame(row.id), kind)

    def place(self, run_id: str) -> tuple[int, float | None]:
        """Return how many runs are ahead of a waiting one, and the expected wait in seconds where one can tell."""
        row = self.store.row(run_id)
        ahead = self.store.ahead(row)
        recent = [r.seconds for r in self.store.rows("state = 'done'", most=20)]
        return ahead, ahead * sum(recent) / len(recent) / self._workers if recent else None

    def pause(self, run_id: str) -> None:
        """Hold a run after the step it is in."""
        self.store.wish(run_id, "hold")

    def go(self, run_id: str) -> None:
        """Let a held run go on."""
        self.store.wish(run_id, "go")

    def step(self, run_id: str) -> None:
        """Let a held run take one step; a running one is held first."""
        self.store.wish(run_id, "hold", single=True)

    def stop(self, run_id: str) -> None:
        """End a run after the step it is in, or before its first; what it has so far is kept."""
        self.store.wish(run_id, "stop")

    def resume(self, run_id: str, owner: str = "") -> str:
        """Take a run that was interrupted or stopped up again where its newest snapshot is; return the new run's id."""
        row = self.store.row(run_id)
        if row.state in OPEN:
            raise StoreError("this run has not ended: watch it")
        self.snapshot(row)
        return self.submit(self.study(row), owner, parent=run_id)

    def tend(self, gap: float = 0.0) -> None:
        """Look after the workers, once in `gap` seconds at most: mark what dead ones left, start missing ones."""
        if time.monotonic() - self._tended >= gap:
            self._tended = time.monotonic()
            tend(self.store, self._addresses, self._workers)
