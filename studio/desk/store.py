"""The store of runs: one SQLite file and a folder of frames, shared by every surface and every worker.

A run is a row; its newest and its last snapshot are files beside the database, written whole or not at all. Whoever
holds the store open may ask (submit, wish) and read; only the worker that claimed a run writes its progress.
"""

__all__ = ["OPEN", "STATES", "Row", "Store", "StoreError", "home"]

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from platformdirs import user_data_dir

from studio.files.archive import write_whole

VARIABLE = "STUDIO_HOME"
APP = "optimisation-studio"
SCHEMA = 1
PATIENCE = 10.0
STATES = ("queued", "running", "held", "done", "stopped", "failed", "interrupted")
OPEN = ("queued", "running", "held")
TABLE = """
CREATE TABLE IF NOT EXISTS runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, study TEXT NOT NULL, knobs TEXT NOT NULL,
  version TEXT NOT NULL, device TEXT NOT NULL DEFAULT '', owner TEXT NOT NULL DEFAULT '',
  parent TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL DEFAULT 'queued', wish TEXT NOT NULL DEFAULT 'go', singles INTEGER NOT NULL DEFAULT 0,
  least REAL NOT NULL DEFAULT 0, submitted REAL NOT NULL, started REAL, ended REAL, watched REAL, slot INTEGER,
  step INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0, phase TEXT NOT NULL DEFAULT '',
  outcome TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0,
  frame INTEGER NOT NULL DEFAULT 0, digest TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, asked REAL NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, number);
"""


class StoreError(ValueError):
    """The store cannot be read or written; the message is one sentence with the remedy."""


@dataclass(frozen=True)
class Row:
    """One run as the store knows it: what was asked, by whom, where it stands, and how it ended.

    `state` is one of `STATES`; `wish` is what its watchers want (go, hold, stop), `singles` how many single steps;
    `frame` counts the frames written, `digest` is the SHA-256 of the last snapshot's bytes. Times are seconds since
    the epoch, None until they come.
    """

    number: int
    id: str
    study: str
    knobs: dict
    version: str
    device: str
    owner: str
    parent: str
    state: str
    wish: str
    singles: int
    least: float
    submitted: float
    started: float | None
    ended: float | None
    watched: float | None
    slot: int | None
    step: int
    total: int
    phase: str
    outcome: str
    error: str
    seconds: float
    frame: int
    digest: str


NAMES = [field.name for field in fields(Row)]


def home() -> Path:
    """Return the folder of the user's runs: the one `STUDIO_HOME` names, else the system's place for user data."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(user_data_dir(APP))


class Store:
    """The runs in a folder. Every method opens its own connection, so threads and processes need no care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            with self._open() as base:
                if base.execute("PRAGMA user_version").fetchone()[0] > SCHEMA:
                    raise StoreError(f"the runs in {folder} are of a newer studio: update, or name another STUDIO_HOME")
                base.executescript(f"PRAGMA journal_mode = WAL; {TABLE} PRAGMA user_version = {SCHEMA};")
        except OSError as error:
            raise StoreError(f"runs cannot be kept in {folder} ({error.strerror}): name another STUDIO_HOME") from error

    def add(
        self,
        study: str,
        knobs: dict,
        version: str,
        owner: str = "",
        parent: str = "",
        least: float = 0.0,
        most: int = 64,
    ) -> str:
        """Put a run at the end of the queue and return its id; a `StoreError` where `most` wait already."""
        run_id = uuid.uuid4().hex
        with self._write() as base:
            (waiting,) = base.execute("SELECT count(*) FROM runs WHERE state = 'queued'").fetchone()
            if waiting >= most:
                raise StoreError(f"{waiting} runs are waiting already: try again when some have ended")
            base.execute(
                "INSERT INTO runs (id, study, knobs, version, owner, parent, least, submitted) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, study, json.dumps(knobs), version, owner, parent, least, time.time()),
            )
        return run_id

    def row(self, run_id: str) -> Row:
        """Return a run; an unknown id is a `KeyError`."""
        found = self.rows("id = ?", (run_id,))
        if not found:
            raise KeyError(run_id)
        return found[0]

    def rows(self, where: str = "1", values: tuple = (), most: int = 1000) -> list[Row]:
        """Return runs, the newest first; `where` is SQL written by us, `values` may come from anybody."""
        with self._open() as base:
            found = base.execute(
                f"SELECT {', '.join(NAMES)} FROM runs WHERE {where} ORDER BY number DESC LIMIT ?", (*values, most)
            ).fetchall()
        return [Row(**dict(zip(NAMES, row, strict=True)) | {"knobs": json.loads(row[3])}) for row in found]

    def search(self, words: str = "", study: str = "", most: int = 200) -> list[Row]:
        """Return the runs whose study, knobs or outcome hold every one of the words."""
        clauses, values = ["1"], []
        for word in words.split()[:8]:
            clauses.append("(study || ' ' || knobs || ' ' || outcome) LIKE ? ESCAPE '\\'")
            values.append(f"%{_literal(word)}%")
        if study:
            clauses.append("study = ?")
            values.append(study)
        return self.rows(" AND ".join(clauses), tuple(values), most)

    def ahead(self, row: Row) -> int:
        """Return how many runs come before a waiting one."""
        with self._open() as base:
            query = "SELECT count(*) FROM runs WHERE state IN ('queued','running','held') AND number < ?"
            return base.execute(query, (row.number,)).fetchone()[0]

    def claim(self, slot: int, device: str) -> Row | None:
        """Give the oldest waiting run to the worker of a slot; None where none waits."""
        with self._write() as base:
            found = base.execute("SELECT id FROM runs WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if found is None:
                return None
            base.execute(
                "UPDATE runs SET state = 'running', slot = ?, device = ?, started = ? WHERE id = ?",
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
        """Say what a watcher wants of an open run: go, hold or stop; `single` also asks for one step.

        A run that still waits is stopped at once; one that has ended is left as it is.
        """
        with self._write() as base:
            if wish == "stop":
                base.execute(
                    "UPDATE runs SET state = 'stopped', ended = ? WHERE id = ? AND state = 'queued'",
                    (time.time(), run_id),
                )
            base.execute(
                "UPDATE runs SET wish = ?, singles = singles + ? WHERE id = ? AND wish != 'stop' "
                "AND state IN ('queued','running','held')",
                (wish, int(single), run_id),
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
            base.execute("INSERT OR REPLACE INTO slots VALUES (?, ?)", (slot, time.time()))
        return True

    def came_up(self, slot: int) -> None:
        """Say that a slot's worker is there: if it dies, another may be started at once."""
        with self._write() as base:
            base.execute("DELETE FROM slots WHERE slot = ?", (slot,))

    def interrupt(self, slot: int) -> None:
        """Mark what the worker of a slot had claimed when it died: interrupted, or stopped where that was wanted."""
        with self._write() as base:
            base.execute(
                "UPDATE runs SET state = CASE wish WHEN 'stop' THEN 'stopped' ELSE 'interrupted' END, ended = ? "
                "WHERE slot = ? AND state IN ('running','held')",
                (time.time(), slot),
            )

    def delete(self, run_id: str) -> None:
        """Forget a run that has ended, with its files; an open one is a `StoreError`."""
        if self.row(run_id).state in OPEN:
            raise StoreError("this run has not ended: stop it first")
        with self._write() as base:
            base.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        for path in self.files(run_id):
            path.unlink(missing_ok=True)

    def files(self, run_id: str) -> list[Path]:
        """Return the files of a run that are there."""
        return sorted((self.folder / "runs").glob(f"{_id(run_id)}.*"))

    def keep(self, run_id: str, data: bytes, durable: bool = True) -> None:
        """Write a run's newest snapshot whole or not at all; `durable` also waits for the disk.

        Raises `StoreError` where the disk refuses.
        """
        try:
            write_whole(self._path(run_id), data, durable)
        except ValueError as error:
            raise StoreError(f"the picture could not be kept in {self.folder}: free some space there") from error

    def frame(self, run_id: str) -> bytes:
        """Return the bytes of a run's newest snapshot; a `StoreError` where there is none."""
        try:
            return self._path(run_id).read_bytes()
        except OSError as error:
            raise StoreError("nothing was kept of this run: run it again") from error

    def sweep(self, older: float = 60.0) -> None:
        """Remove what writers that were killed left half-written."""
        for path in (self.folder / "runs").glob(".*.part"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > older:
                    path.unlink()

    def _path(self, run_id: str) -> Path:
        return self.folder / "runs" / f"{_id(run_id)}.safetensors"

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.folder / "runs.sqlite", timeout=PATIENCE, isolation_level=None)) as base:
                base.execute("PRAGMA synchronous = NORMAL")
                yield base
        except sqlite3.Error as error:
            raise StoreError(f"the store of runs in {self.folder} does not answer ({error}): see README") from error

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        with self._open() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield base
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _id(run_id: str) -> str:
    """Return an id that can be part of a path; anything but 32 hexadecimal digits is a `KeyError`."""
    if len(run_id) != 32 or not all(letter in "0123456789abcdef" for letter in run_id):
        raise KeyError(run_id)
    return run_id
