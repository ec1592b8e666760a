"""One run pulled from its first step to its end: what its watchers want is obeyed, and what they see is written."""

__all__ = ["pull"]

import hashlib
import time
import traceback
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from studio.core.controls import clamp
from studio.core.snapshots import Snapshot, nbytes
from studio.desk.store import ENDS, Row, Store
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.studies.study import Study, snapshot_type

FRAME_GAP = 0.125
FILM_GAP = 0.1
FILM, FILM_BYTES = 48, 64 * 2**20
KEEP_GAP = 5.0
LOOK_GAP = 0.02
NAP = 0.02
ABANDONED = 90.0
LONG_HELD = 300.0


def pull(store: Store, row: Row, studies: Mapping[str, type[Study]]) -> None:
    """Run one row to its end; whatever goes wrong becomes its error sentence."""
    try:
        kind = studies[row.study]
        study = clamp(kind, row.knobs)
        start = snapshot_from(store.frame(row.parent), snapshot_type(kind)) if row.parent else None
        with closing(study.run(start)) as run:
            _Pull(store, row).through(run)
    except MemoryError:
        _failed(store, row, "there is not enough memory for this run: choose smaller sizes")
    except ValueError as error:
        _failed(store, row, str(error))
    except Exception as error:
        traceback.print_exc()
        name = type(error).__name__
        _failed(store, row, f"the run failed ({name}): the log of the worker, in the studio's folder, has the details")


class _Pull:
    """Pulls one generator, obeys what its watchers want, and writes frames."""

    def __init__(self, store: Store, row: Row) -> None:
        self.store, self.row = store, row
        self.worked, self.frame, self.taken, self.pulls = row.seconds, 0, 0, 0
        self.due = self.look = self.film_due = 0.0
        self.filmed = -1
        self.keep = time.monotonic() + KEEP_GAP
        self.wish, self.singles, self.watched = row.wish, row.singles, time.time()
        self.told: Snapshot | None = None
        self.held_since: float | None = None

    def through(self, run: Any) -> None:
        """Pull to the end, or until it shall end; a run nobody watches may not stay held for ever."""
        snapshot: Snapshot | None = None
        state, note = "done", ""
        while True:
            self._look()
            if self.wish in ENDS:
                state = ENDS[self.wish]
                break
            if self.worked > 60 * self.row.minutes:
                state, note = "stopped", f"stopped after {self.row.minutes:g} minutes, the limit of this studio"
                break
            if self.row.until is not None and self.pulls >= self.row.until:
                state = "stopped"
                break
            if self.wish == "hold" and self.taken >= self.singles and snapshot is not None:
                if self._held(snapshot):
                    continue
                state = "interrupted"
                break
            self.held_since = None
            following = self._pulled(run)
            if following is None:
                break
            snapshot = following
            self.pulls += 1
            self._show(snapshot)
            if self.row.least and self.wish == "go":
                self._slow(snapshot)
        self._end(snapshot, state, note)

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

    def _show(self, snapshot: Snapshot) -> None:
        """Write what a watcher is due, and now and then a picture of the film: fewer where snapshots are large."""
        now = time.monotonic()
        most = min(FILM, max(FILM_BYTES // max(nbytes(snapshot), 1), 4))
        scene = snapshot.step * most // max(snapshot.total, 1)
        if self.wish == "hold":
            self.taken += 1
        elif now >= self.due:
            self._tell(snapshot, "running", durable=now >= self.keep)
        if scene > self.filmed and now >= self.film_due:
            self.filmed, self.film_due = scene, now + FILM_GAP
            self.store.film(self.row.id, snapshot.step, None if self.told is snapshot else snapshot_bytes(snapshot))

    def _held(self, snapshot: Snapshot) -> bool:
        """Wait a little between two steps; False where nobody watches, or others have waited for long."""
        if self.told is not snapshot or self.held_since is None:
            self._tell(snapshot, "held", durable=True)
            self.held_since = time.monotonic()
        time.sleep(NAP)
        alone = time.monotonic() - self.held_since < LONG_HELD or not self.store.waiting()
        return alone and time.time() - self.watched < ABANDONED

    def _slow(self, snapshot: Snapshot) -> None:
        nap = self.row.least / max(snapshot.total, 1)
        time.sleep(nap)
        self.worked += nap

    def _tell(self, snapshot: Snapshot, state: str, durable: bool) -> bytes:
        data = snapshot_bytes(snapshot)
        self.store.keep(self.row.id, data, durable)
        self.frame += 1
        self.store.update(
            self.row.id, state=state, pulls=self.pulls, step=snapshot.step, total=snapshot.total, phase=snapshot.phase,
            outcome=snapshot.outcome, seconds=self.worked, frame=self.frame,
        )  # fmt: skip
        self.told, self.due = snapshot, time.monotonic() + FRAME_GAP
        if durable:
            self.keep = time.monotonic() + KEEP_GAP
        return data

    def _end(self, snapshot: Snapshot | None, state: str, note: str) -> None:
        digest = ""
        if snapshot is not None:
            digest = hashlib.sha256(self._tell(snapshot, "running", durable=True)).hexdigest()
            self.store.film(self.row.id, snapshot.step)
        self.store.update(self.row.id, state=state, error=note, ended=time.time(), digest=digest)


def _failed(store: Store, row: Row, sentence: str) -> None:
    store.update(row.id, state="failed", ended=time.time(), error=sentence)
