"""The desk behind every surface: hand a study in, watch it from anywhere, hold, step, stop, resume, repeat.

Runs live in the store and are worked on by a worker process, so a surface may come and go: whoever knows a run's id can
watch it, at once or later, alone or with others.
"""

__all__ = ["Desk", "Frame"]

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from studio import __version__
from studio.core.controls import clamp, knobs
from studio.core.snapshots import Snapshot
from studio.desk.policy import Policy
from studio.desk.store import Order, Row, Store, StoreError, home
from studio.desk.tending import addresses, fingerprint, tend
from studio.desk.worker import Inside
from studio.files.frames import snapshot_from
from studio.studies.study import Study, snapshot_type

T = TypeVar("T")
NAP = 0.04
FRESH = 0.03
TEND_GAP = 1.0
WATCHED_GAP = 5.0
RECENT = 20
MARK_GAP = 1.0


@dataclass(frozen=True, eq=False)
class Frame:
    """What a watcher gets: the newest snapshot of a run, its row in the store, and how the run stands.

    `stopped` is true of a run that has ended before its last step, whoever wanted it.
    """

    row: Row
    snapshot: Snapshot
    held: bool = False
    ended: bool = False
    stopped: bool = False

    @property
    def seconds(self) -> float:
        """Return the seconds worked so far."""
        return self.row.seconds

    @property
    def remaining(self) -> float | None:
        """Return the expected seconds to the end at the pace so far, None before the first step."""
        done = self.snapshot.step
        return self.seconds / done * (self.snapshot.total - done) if done else None


class Desk:
    """Runs by id, in the store of a folder (the user's own, where none is named) and worked on by `workers` processes.

    `catalog` holds the studies this desk takes; their classes must be importable, as a worker is another process. With
    0 workers the runs are worked on by a thread of this process, and a study may come from anywhere. Methods that take
    a run's id raise `KeyError` for an unknown one, and do nothing to a run that has ended, unless they say otherwise.
    """

    def __init__(
        self, catalog: Sequence[type[Study]], folder: Path | None = None, workers: int = 1, policy: Policy | None = None
    ) -> None:
        self.store = Store(folder or home())
        self.policy = policy or Policy()
        self._catalog, self._workers = tuple(catalog), workers
        self._studies = {study.name: study for study in catalog}
        self._addresses = addresses(catalog) if workers else []
        self._inside = None if workers else Inside(self.store, self._studies)
        self._tended = 0.0
        self._mine: set[str] = set()
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._marked = (-MARK_GAP, "")
        self._rows: dict[str, tuple[float, Row]] = {}
        self._watched: dict[str, float] = {}
        self._newest: dict[str, tuple[int, Snapshot]] = {}

    def submit(
        self, study: Study, owner: str = "", *, beside: str = "", parent: str = "", least: float = 0.0,
        until: int | None = None,
    ) -> str:  # fmt: skip
        """Put a study at the end of the queue and return the run's id.

        `parent` is a run to go on from, `beside` the run this one is compared with, `until` how many snapshots to
        take; `least` spreads a short run over that many seconds. A full queue, or a knob above its cap, is a
        `ValueError`.
        """
        if self._studies.get(study.name) is not type(study):
            raise ValueError(
                f"{study.name} is not in this studio's catalogue: add it there, or call its run() yourself"
            )
        snapshot_type(type(study))
        self.policy.check(study)
        order = Order(
            study=study.name, knobs=knobs(study), version=__version__, owner=owner, parent=parent, beside=beside,
            until=until, least=least, minutes=self.policy.minutes, slot=self._inside.slot if self._inside else None,
        )  # fmt: skip
        mark = self._mark() if self._workers else ""
        run_id = self.store.add(order, self.policy.waiting, self.policy.each if owner else 0, mark)
        self._mine.add(run_id)
        if self._inside is not None:
            self._inside.start()
        self.tend()
        return run_id

    def study(self, row: Row) -> Study:
        """Return the study of a run, knobs that no longer exist ignored and values clamped."""
        return clamp(self.kind(row.study), row.knobs)

    def knows(self, name: str) -> bool:
        """Return whether this desk has a study of a name."""
        return name in self._studies

    def kind(self, name: str) -> type[Study]:
        """Return the study class of a name; a `ValueError` where this desk has none."""
        if name not in self._studies:
            raise ValueError(f"this studio has no study called {name[:60]!r}; there are {', '.join(self._studies)}")
        return self._studies[name]

    def row(self, run_id: str) -> Row:
        """Return a run as it is now, or was a moment ago: many watchers of one run ask the store once."""
        with self._guard:
            asked, row = self._rows.get(run_id, (0.0, None))
            if row is None or time.monotonic() - asked > FRESH:
                row = self.store.row(run_id)
                _bound(self._rows)[run_id] = (time.monotonic(), row)
            return row

    def watch(self, run_id: str, per_second: float = 8.0) -> Generator[Frame, None, None]:
        """Yield the newest frame at most `per_second` times a second, and always the last; closing it changes nothing.

        Waits while the run is queued. Raises `ValueError` with the run's sentence where it failed or waits in vain.
        """
        watcher = _Watcher(self, run_id, per_second)
        while not watcher.over:
            frame = watcher.look()
            if frame is not None:
                yield frame
            elif not watcher.over:
                time.sleep(NAP)

    async def follow(self, run_id: str, per_second: float = 8.0) -> AsyncGenerator[Frame | None, None]:
        """Yield what `watch` yields, without holding a thread; None, once in a while, where nothing is new."""
        watcher, quiet = _Watcher(self, run_id, per_second), 0
        while not watcher.over:
            frame = await asyncio.to_thread(watcher.look) if watcher.due() else None
            quiet = 0 if frame is not None else quiet + 1
            if frame is not None or quiet % 12 == 1:
                yield frame
            elif not watcher.over:
                await asyncio.sleep(NAP)

    def snapshot(self, row: Row) -> Snapshot:
        """Return the newest snapshot of a run; a `ValueError` where there is none or it is damaged."""
        with self._guard:
            number, snapshot = self._newest.get(row.id, (-1, None))
            if snapshot is None or number != row.frame:
                snapshot = snapshot_from(self.store.frame(row.id), snapshot_type(type(self.study(row))))
                _bound(self._newest, 8)[row.id] = (row.frame, snapshot)
            return snapshot

    def film(self, row: Row) -> list[Snapshot]:
        """Return the snapshots that were kept of a run on its way, in the order of its steps."""
        kind = snapshot_type(type(self.study(row)))
        return [snapshot_from(path.read_bytes(), kind) for path in self.store.frames(row.id)]

    def beside(self, run_id: str) -> Row | None:
        """Return the run that was handed in to be compared with this one, where there is one."""
        found = self.store.rows("beside = ?", (run_id,), most=1)
        return found[0] if found else None

    def place(self, run_id: str) -> tuple[int, float | None]:
        """Return how many runs are ahead of a waiting one, and the expected wait in seconds where one can tell."""
        ahead = self.store.ahead(self.row(run_id))
        recent = [row.seconds for row in self.store.rows("state = 'done'", most=RECENT)]
        return ahead, ahead * sum(recent) / len(recent) / max(self._workers, 1) if recent else None

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
        """End a run, and the one beside it, after the step it is in or before its first; what it has is kept."""
        self.store.wish(run_id, "stop")

    def resume(self, run_id: str, owner: str = "") -> str:
        """Take a run that has ended early up again where its newest snapshot is; return the new run's id."""
        row = self.store.row(run_id)
        if row.open:
            raise StoreError("this run has not ended: watch it")
        if row.state == "done":
            raise StoreError("this run has reached its end: run it again with more steps")
        self.snapshot(row)
        return self.submit(self.study(row), owner, parent=run_id)

    def again(self, run_id: str, owner: str = "") -> str:
        """Repeat a run to where it ended, from where it started; return the new run's id."""
        row = self.store.row(run_id)
        if row.open:
            raise StoreError("this run has not ended: watch it")
        until = None if row.state == "done" else row.pulls
        return self.submit(self.study(row), owner, parent=row.parent, until=until)

    def back(self, run_id: str, step: int, owner: str = "") -> str:
        """Take an ended run back to an earlier step: run it again as far as that; return the new run's id.

        It can then be exported or gone on from. Raises `StoreError` where the step is not one the run has made.
        """
        row = self.store.row(run_id)
        if row.open:
            raise StoreError("this run has not ended: stop it first")
        pulls = row.pulls - (row.step - step)
        if not (step < row.step and pulls >= 1):
            first = row.step - row.pulls + 1
            raise StoreError(f"step must be between {first:,} and {row.step - 1:,}, got {step:,}: this run made those")
        return self.submit(self.study(row), owner, parent=row.parent, until=pulls)

    def verdict(self, first: str, second: str) -> tuple[bool, str]:
        """Return whether a run and its repetition ended with the same bytes, and the sentence that says so."""
        one, two = self.store.row(first), self.store.row(second)
        if two.open or not two.digest or not one.frame or self.snapshot(one).step != one.step:
            return False, f"nothing to compare: {two.error or 'one of the two runs kept nothing whole at its end'}"
        kept = one.digest or hashlib.sha256(self.store.frame(one.id)).hexdigest()
        if kept == two.digest:
            return True, f"the bytes agree at step {two.step:,} (SHA-256 {kept[:12]})"
        changes = [f"{name} {a} then, {b} now" for name, a, b in (
            ("version", one.version, two.version), ("device", one.device, two.device), ("step", one.step, two.step),
        ) if a != b]  # fmt: skip
        return False, f"the bytes differ ({'; '.join(changes) or 'same version, same device'})"

    def watched(self, row: Row) -> None:
        """Say that somebody watches a run, so that it may stay held, and look after the workers."""
        if row.open:
            with self._guard:
                due = time.monotonic() - self._watched.get(row.id, -WATCHED_GAP) >= WATCHED_GAP
                if due:
                    _bound(self._watched)[row.id] = time.monotonic()
            if due:
                self.store.update(row.id, watched=time.time())
            self.tend(TEND_GAP)

    def close(self) -> None:
        """Interrupt every run that was handed in here and has not ended; what it has so far is kept."""
        for row in self.store.rows("state IN ('queued','running','held')"):
            if row.id in self._mine:
                self.store.wish(row.id, "leave")

    def tend(self, gap: float = 0.0, warm: bool = False) -> None:
        """Look after the workers, once in `gap` seconds at most: mark what dead ones left, start missing ones."""
        asked = time.monotonic()
        if asked - self._tended >= gap:
            # Of many who ask at once, one looks for all who asked before it began.
            with self._turn:
                if warm or self._tended < asked:
                    self._tended = time.monotonic()
                    tend(self.store, self._addresses, self._workers, warm=warm)

    def _mark(self) -> str:
        with self._guard:
            if time.monotonic() - self._marked[0] > MARK_GAP:
                self._marked = time.monotonic(), fingerprint(self._catalog)
            return self._marked[1]


def _bound(kept: dict[str, T], most: int = 500) -> dict[str, T]:
    """Return what is kept, emptied where it has grown too large."""
    if len(kept) > most:
        kept.clear()
    return kept


class _Watcher:
    """One watcher of one run: says when there is something new, at most so often, and that the run is over."""

    def __init__(self, desk: Desk, run_id: str, per_second: float) -> None:
        self.over = False
        self._desk, self._run_id, self._gap = desk, run_id, 1 / per_second
        self._seen, self._told, self._next, self._marked = -1, "", 0.0, 0.0

    def due(self) -> bool:
        """Return whether a look may find something."""
        row, now = self._desk.row(self._run_id), time.monotonic()
        fresh = row.frame != self._seen and now >= self._next
        return fresh or not row.open or (row.state == "held" != self._told) or now >= self._marked

    def look(self) -> Frame | None:
        """Return a frame where one is due."""
        desk, now = self._desk, time.monotonic()
        row = desk.row(self._run_id)
        if now >= self._marked:
            desk.watched(row)
            self._marked = now + TEND_GAP
        if row.state == "queued" and row.error:
            raise ValueError(row.error)
        self.over = not row.open
        fresh = row.frame != self._seen and now >= self._next
        if not (self.over or fresh or (row.state == "held" != self._told)):
            return None
        drawn, self._seen, self._told, self._next = self._seen == row.frame, row.frame, row.state, now + self._gap
        if row.state == "failed" and (drawn or not row.frame):
            raise ValueError(row.error)
        self.over = self.over and row.state != "failed"
        if not row.frame:
            return None
        early = self.over and row.state != "done"
        return Frame(row, desk.snapshot(row), held=row.state == "held", ended=self.over, stopped=early)
