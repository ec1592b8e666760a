"""The store of runs: one SQLite file and a folder of frames, shared by every surface and every worker.

A run is a row; its newest and its last snapshot are files beside the database, written whole or not at all. Whoever
holds the store open may ask (submit, wish) and read; only the worker that claimed a run writes its progress.
"""

__all__ = ["OPEN", "STATES", "Order", "Row", "Store", "StoreError", "home"]

import json
import os
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from platformdirs import user_data_dir

from studio.desk.shelf import Shelf, StoreError

VARIABLE = "STUDIO_HOME"
APP = "optimisation-studio"
SCHEMA = 1
PATIENCE = 10.0
STATES = ("queued", "running", "held", "done", "stopped", "failed", "interrupted")
OPEN = ("queued", "running", "held")
FAILED = "failed to start"
ENDS = {"stop": "stopped", "leave": "interrupted"}
IS_OPEN = "state IN ('queued','running','held')"
TABLE = """
CREATE TABLE IF NOT EXISTS runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, study TEXT NOT NULL, knobs TEXT NOT NULL,
  version TEXT NOT NULL, owner TEXT NOT NULL, parent TEXT NOT NULL, beside TEXT NOT NULL, until INTEGER,
  least REAL NOT NULL, minutes REAL NOT NULL, slot INTEGER, submitted REAL NOT NULL,
  device TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'queued',
  wish TEXT NOT NULL DEFAULT 'go', wished REAL, singles INTEGER NOT NULL DEFAULT 0,
  started REAL, ended REAL, watched REAL,
  pulls INTEGER NOT NULL DEFAULT 0, step INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
  phase TEXT NOT NULL DEFAULT '',
  outcome TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0,
  frame INTEGER NOT NULL DEFAULT 0, digest TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS slots (
  slot INTEGER PRIMARY KEY, asked REAL NOT NULL DEFAULT 0, mark TEXT NOT NULL DEFAULT '', pid INTEGER,
  leave INTEGER NOT NULL DEFAULT 0, wanted REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, number);
"""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for when a run is handed in.

    `parent` is a run to go on from, `beside` one that this run is compared with (stopping that one stops this one),
    `until` how many snapshots to take, `least` the seconds a short run is spread over, `minutes` the work it may
    take, `slot` the only worker that may take it.
    """

    study: str
    knobs: dict
    version: str
    owner: str = ""
    parent: str = ""
    beside: str = ""
    until: int | None = None
    least: float = 0.0
    minutes: float = 1e9
    slot: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row(Order):
    """One run as the store knows it: what was asked, where it stands, and how it ended.

    `state` is one of `STATES`; `wish` is what is wanted of it (go, hold, stop, leave), `singles` how many single steps;
    `pulls` counts the snapshots taken and `frame` those written for watchers; `digest` is the SHA-256 of the last
    snapshot's bytes. Times are seconds since the epoch, None until they come.
    """

    number: int
    id: str
    submitted: float
    device: str
    state: str
    wish: str
    wished: float | None
    singles: int
    started: float | None
    ended: float | None
    watched: float | None
    pulls: int
    step: int
    total: int
    phase: str
    outcome: str
    error: str
    seconds: float
    frame: int
    digest: str

    @property
    def open(self) -> bool:
        """Return whether the run waits or is being worked on."""
        return self.state in OPEN


NAMES = [field.name for field in fields(Row)]
ORDERED = [field.name for field in fields(Order)]


def home() -> Path:
    """Return the folder of the user's runs: the one `STUDIO_HOME` names, else the system's place for user data."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(user_data_dir(APP))


class Store(Shelf):
    """The runs in a folder. Every method opens its own connection, so threads and processes need no care."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Threads of one process take turns here: SQLite lets those who find it locked sleep longer and longer.
        self._turn = threading.Lock()
        self._kept: tuple[int, sqlite3.Connection] | None = None
        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            with self._open() as base:
                if base.execute("PRAGMA user_version").fetchone()[0] > SCHEMA:
                    raise StoreError(f"the runs in {folder} are of a newer studio: update, or name another STUDIO_HOME")
                base.executescript(f"PRAGMA journal_mode = WAL; {TABLE} PRAGMA user_version = {SCHEMA};")
            # Held open, unused: the last connection to close writes the whole log back, and waits for the disk.
            self._anchor = sqlite3.connect(folder / "runs.sqlite", isolation_level=None, check_same_thread=False)
            self._anchor.execute("SELECT count(*) FROM slots").fetchone()
            weakref.finalize(self, self._anchor.close)
        except OSError as error:
            raise StoreError(f"runs cannot be kept in {folder} ({error.strerror}): name another STUDIO_HOME") from error

    def add(self, order: Order, most: int = 64, each: int = 0, mark: str = "") -> str:
        """Put a run at the end of the queue and return its id.

        Workers of another `mark` (see `came_up`) leave after the run they are in. A `StoreError` where `most` runs
        wait already, or where the owner has `each` open ones (0: no such limit).
        """
        run_id = uuid.uuid4().hex
        # Words as they are, for the search; half a surrogate, which a terminal may pass on, becomes a question mark.
        turned = json.dumps(order.knobs, ensure_ascii=False).encode("utf-8", "replace").decode()
        values = [turned if name == "knobs" else getattr(order, name) for name in ORDERED]
        with self._open() as base:
            _room(base, most)
        with self._write() as base:
            _room(base, most)
            query = f"SELECT count(*) FROM runs WHERE owner = ? AND {IS_OPEN}"
            (own,) = base.execute(query, (order.owner,)).fetchone()
            if each and own >= each:
                raise StoreError(f"{own} runs of yours have not ended: stop one, or wait for it")
            base.execute(
                f"INSERT INTO runs (id, submitted, {', '.join(ORDERED)}) VALUES (?, ?{', ?' * len(ORDERED)})",
                (run_id, time.time(), *values),
            )
            if mark:
                base.execute("UPDATE slots SET asked = 0, mark = '' WHERE mark = ?", (FAILED,))
                base.execute("UPDATE slots SET leave = 1 WHERE mark NOT IN ('', ?)", (mark,))
        return run_id

    def row(self, run_id: str) -> Row:
        """Return a run; an unknown id is a `KeyError`."""
        found = self.rows("id = ?", (run_id,))
        if not found:
            raise KeyError(run_id)
        return found[0]

    def named(self, name: str) -> Row:
        """Return the run of an id, of the first letters of one, or the 'last'; a `StoreError` where that is not one."""
        if name == "last":
            found = self.rows(most=1)
        elif len(name) >= 4 and all(letter in "0123456789abcdef" for letter in name):
            found = self.rows("id LIKE ?", (f"{name}%",), most=2)
        else:
            found = []
        if len(found) != 1:
            raise StoreError(
                f"{'several runs begin' if found else 'no run begins'} with {name[:40]!r}: see studio runs"
            )
        return found[0]

    def rows(self, where: str = "1", values: tuple = (), most: int = 1000) -> list[Row]:
        """Return runs, the newest first; `where` is SQL written by us, `values` may come from anybody."""
        with self._open() as base:
            found = base.execute(
                f"SELECT {', '.join(NAMES)} FROM runs WHERE {where} ORDER BY number DESC LIMIT ?", (*values, most)
            ).fetchall()
        records = [dict(zip(NAMES, row, strict=True)) for row in found]
        return [Row(**record | {"knobs": json.loads(record["knobs"])}) for record in records]

    def search(
        self, words: str = "", studies: Sequence[str] | None = None, owner: str | None = None, most: int = 200
    ) -> list[Row]:
        """Return the runs whose study, knobs, outcome, id or state hold every one of the words, the newest first.

        Only those of `studies` and of one owner, where these are named.
        """
        clauses, values = ["1"], []
        for word in words.split()[:8]:
            clauses.append("(study || ' ' || knobs || ' ' || outcome || ' ' || id || ' ' || state) LIKE ? ESCAPE '\\'")
            values.append(f"%{_literal(word)}%")
        if studies is not None:
            clauses.append(f"study IN ({', '.join('?' * len(studies))})")
            values += studies
        if owner is not None:
            clauses.append("owner = ?")
            values.append(owner)
        return self.rows(" AND ".join(clauses), tuple(values), most)

    def ahead(self, row: Row) -> int:
        """Return how many runs come before a waiting one."""
        with self._open() as base:
            query = f"SELECT count(*) FROM runs WHERE {IS_OPEN} AND number < ?"
            return base.execute(query, (row.number,)).fetchone()[0]

    def waiting(self) -> int:
        """Return how many runs wait for a worker."""
        with self._open() as base:
            return base.execute("SELECT count(*) FROM runs WHERE state = 'queued' AND slot IS NULL").fetchone()[0]

    def claim(self, slot: int, device: str, studies: Sequence[str]) -> Row | None:
        """Give the oldest waiting run of these studies to the worker of a slot; None where none waits for it."""
        with self._write() as base:
            if self._leaves(base, slot):
                return None
            known = ", ".join("?" * len(studies))
            found = base.execute(
                f"SELECT id FROM runs WHERE state = 'queued' AND study IN ({known}) AND (slot IS NULL OR slot = ?) "
                "ORDER BY number LIMIT 1",
                (*studies, slot),
            ).fetchone()
            if found is None:
                return None
            base.execute(
                "UPDATE runs SET state = 'running', error = '', slot = ?, device = ?, started = ? WHERE id = ?",
                (slot, device, time.time(), found[0]),
            )
        return self.row(found[0])

    def update(self, run_id: str, **values: object) -> None:
        """Set columns of a run; the names are ours, the values may come from anybody."""
        assert set(values) <= set(NAMES)
        with self._write() as base:
            names = ", ".join(f"{name} = ?" for name in values)
            base.execute(f"UPDATE runs SET {names} WHERE id = ?", (*values.values(), run_id))

    def wish(self, run_id: str, wish: str, single: bool = False) -> None:
        """Say what is wanted of an open run: go, hold, stop, or leave (be interrupted); `single` asks for one step.

        A run that still waits ends at once; so does one that stands beside it. One that has ended is left as it is.
        """
        with self._write() as base:
            if wish in ENDS:
                base.execute(
                    "UPDATE runs SET state = ?, ended = ? WHERE ? IN (id, beside) AND state = 'queued'",
                    (ENDS[wish], time.time(), run_id),
                )
            which = "? IN (id, beside)" if wish in ENDS else "id = ?"
            base.execute(
                f"UPDATE runs SET wish = ?, wished = ?, singles = singles + ? WHERE {which} AND wish != 'stop' "
                f"AND {IS_OPEN}",
                (wish, time.time(), int(single), run_id),
            )

    def wishes(self, run_id: str) -> tuple[str, int, float]:
        """Return what is wanted of a run, how many single steps were asked for, and when it was last watched."""
        with self._open() as base:
            wish, singles, watched = base.execute(
                "SELECT wish, singles, watched FROM runs WHERE id = ?", (run_id,)
            ).fetchone() or ("stop", 0, None)
        return wish, singles, watched or 0.0

    def may_start(self, slot: int, patience: float) -> bool:
        """Take the right to start a slot's worker: one asker in `patience` seconds, until that worker has come up."""
        with self._write() as base:
            found = base.execute("SELECT asked FROM slots WHERE slot = ?", (slot,)).fetchone()
            if found is not None and 0 <= time.time() - found[0] < patience:
                return False
            base.execute("INSERT OR IGNORE INTO slots (slot) VALUES (?)", (slot,))
            base.execute("UPDATE slots SET asked = ? WHERE slot = ?", (time.time(), slot))
        return True

    def came_up(self, slot: int, mark: str) -> None:
        """Say that a slot's worker is there, running the code and settings that `mark` stands for."""
        with self._write() as base:
            base.execute(
                "INSERT OR REPLACE INTO slots (slot, mark, pid, wanted) VALUES (?, ?, ?, ?)",
                (slot, mark, os.getpid(), time.time()),
            )

    def give_up(self, slot: int, sentence: str) -> None:
        """Tell what waits that the worker asked for in a slot has not come up; it goes on waiting for the next try.

        That comes with the next run that is handed in, or in a while.
        """
        with self._write() as base:
            if base.execute("SELECT 1 FROM slots WHERE slot = ? AND asked > 0", (slot,)).fetchone():
                base.execute("UPDATE slots SET mark = ? WHERE slot = ?", (FAILED, slot))
                base.execute("UPDATE runs SET error = ? WHERE state = 'queued' AND slot IS NULL", (sentence,))

    def want(self, slot: int) -> None:
        """Say that somebody will soon have work for a slot's worker: it does not leave for being idle."""
        with self._write() as base:
            base.execute("UPDATE slots SET wanted = ? WHERE slot = ?", (time.time(), slot))

    def slot(self, slot: int) -> tuple[bool, float, int | None]:
        """Return whether a slot's worker shall leave, when it was last wanted, and its process id."""
        with self._open() as base:
            query = "SELECT wanted, pid FROM slots WHERE slot = ?"
            wanted, pid = base.execute(query, (slot,)).fetchone() or (0.0, None)
            return self._leaves(base, slot), wanted, pid

    def interrupt(self, slot: int) -> None:
        """Mark what the worker of a slot had when it died: interrupted, or stopped where that was wanted."""
        with self._write() as base:
            base.execute(
                "UPDATE runs SET state = CASE wish WHEN 'stop' THEN 'stopped' ELSE 'interrupted' END, ended = ? "
                f"WHERE slot = ? AND {IS_OPEN}",
                (time.time(), slot),
            )

    def delete(self, run_id: str) -> None:
        """Forget a run that has ended, with its files; an open one is a `StoreError`."""
        if self.row(run_id).open:
            raise StoreError("this run has not ended: stop it first")
        with self._write() as base:
            base.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        for path in self.files(run_id):
            path.unlink(missing_ok=True)

    @staticmethod
    def _leaves(base: sqlite3.Connection, slot: int) -> bool:
        return base.execute("SELECT leave FROM slots WHERE slot = ?", (slot,)).fetchone() == (1,)

    @contextmanager
    def staying_open(self) -> Generator[None]:
        """Keep one connection for this thread: for a worker, which asks the store fifty times a second."""
        with self._open() as base:
            self._kept = threading.get_ident(), base
            try:
                yield
            finally:
                self._kept = None

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        try:
            if self._kept is not None and self._kept[0] == threading.get_ident():
                yield self._kept[1]
                return
            with closing(sqlite3.connect(self.folder / "runs.sqlite", timeout=PATIENCE, isolation_level=None)) as base:
                base.execute("PRAGMA synchronous = NORMAL")
                yield base
        except sqlite3.Error as error:
            remedy = "see whether its disk is full or read-only, or name another STUDIO_HOME"
            raise StoreError(f"the store of runs in {self.folder} does not answer ({error}): {remedy}") from error

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        with self._turn, self._open() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield base
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")


def _room(base: sqlite3.Connection, most: int) -> None:
    (waiting,) = base.execute("SELECT count(*) FROM runs WHERE state = 'queued'").fetchone()
    if waiting >= most:
        raise StoreError(f"{waiting} runs are waiting already: try again when some have ended")


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
