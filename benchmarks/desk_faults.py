"""Full disks, folders that cannot be written, and folders with odd names: what a run and a store make of them."""

__all__ = ["disks", "full_at", "odd_folders"]

import builtins
import errno
import gc
import hashlib
import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.desk_place import kill, place, until, worker_pid
from benchmarks.desk_study import Trail, Walk, ending
from studio.desk.desk import Desk
from studio.desk.pull import pull
from studio.desk.store import Order, Store, StoreError
from studio.desk.tending import alive
from studio.files.frames import snapshot_from

DISK = "size=160m"
FRAME = 0.25
MOST = 2**19


def disks(points: int = 20) -> dict[str, object]:
    """Fill the disk at `points` places of the write sequence, in the store and (where one may mount) for real."""
    injected, damaged, unclear, sentences = 0, 0, 0, []
    for call, base in ((1 + point // 2, bool(point % 2)) for point in range(2 * points)):
        found = full_at(call, base)
        injected += found.failed
        damaged += found.damaged
        unclear += not found.clear
        sentences.append(found.sentence)
    real = _real(points)
    return {
        "disk_full_points": 2 * points,
        "disk_full_damaged": damaged + int(real.get("disk_full_real_damaged", 0)),
        "disk_full_reached": injected,
        "disk_full_unclear": unclear,
        "disk_full_sentences": sorted({re.sub("/[^ )]*", "FOLDER", sentence) for sentence in sentences if sentence}),
        **real,
    }


@dataclass
class Fault:
    """What one full disk left: whether it hit, how many files or rows are not as before, and what was said."""

    failed: bool
    damaged: int
    sentence: str

    @property
    def clear(self) -> bool:
        """Return whether what was said, if the run did not end well, names the disk or its space."""
        return not self.sentence or "space" in self.sentence or "disk" in self.sentence


def full_at(call: int, base: bool) -> Fault:
    """Run a walk in a store whose disk is full from its `call`-th write on, free space, and go on with the queue.

    Where `base` is false the database still has room in its own file, so that it can say what happened.
    """
    with tempfile.TemporaryDirectory(prefix="studio-bench-") as name:
        store, studies = Store(Path(name)), {Walk.name: Walk}
        for seed in range(2):
            _pulled(store, Walk(steps=5, seed=seed, megabytes=FRAME), studies)
        before = _state(store)
        run_id, sentence = _order(store, Walk(steps=20, nap=0.03, seed=5, megabytes=FRAME)), ""
        behind = Walk(steps=5, seed=9)
        waits = _order(store, behind)
        row = store.claim(0, "cpu", (Walk.name,))
        assert row is not None and row.id == run_id
        with _full(call, base) as disk:
            try:
                pull(store, row, studies)
            except StoreError as error:
                sentence = str(error)
        store.interrupt(0)
        ended = store.row(run_id)
        damaged = sum(_state(store).get(key) != value for key, value in before.items())
        damaged += _unreadable(store) + (ended.state not in ("failed", "interrupted", "done"))
        damaged += disk.hit and ended.state != "done" and not (ended.error or sentence)
        row = store.claim(0, "cpu", (Walk.name,))
        assert row is not None and row.id == waits
        pull(store, row, studies)
        damaged += store.row(waits).digest != hashlib.sha256(ending(behind)).hexdigest()
        damaged += len(list((store.folder / "runs").glob(".*.part")))
        return Fault(disk.hit, damaged, ended.error or sentence)


class _Disk:
    """Counts the writes of this process to files, and to databases where `base` says so, and refuses from one on."""

    def __init__(self, call: int, base: bool) -> None:
        self.call, self.base, self.calls, self.hit = call, base, 0, False

    def write(self) -> None:
        self.calls += 1
        if self.calls >= self.call:
            self.hit = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def execute(self, base: sqlite3.Connection, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.base and sql.split()[0] in ("INSERT", "UPDATE", "DELETE", "COMMIT"):
            try:
                self.write()
            except OSError as error:
                raise sqlite3.OperationalError("database or disk is full") from error
        return sqlite3.Connection.execute(base, sql, *values)


@contextmanager
def _full(call: int, base: bool) -> Generator[_Disk, None, None]:
    """Let the disk be full from the `call`-th write on: opening, writing, flushing, renaming, linking, committing."""
    disk, connect, opened = _Disk(call, base), sqlite3.connect, Path.open

    class Base(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return disk.execute(self, sql, *values)

    class Stream:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, data: bytes) -> int:
            half = len(data) // 2
            self.stream.write(data[:half])
            disk.write()
            return half + self.stream.write(data[half:])

        def flush(self) -> None:
            disk.write()
            self.stream.flush()

        def fileno(self) -> int:
            return self.stream.fileno()

        def __enter__(self) -> "Stream":
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

    def open_(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return opened(path, mode, *rest, **more)
        disk.write()
        return Stream(opened(path, mode, *rest, **more))

    def counted(act: Any) -> Any:
        def call(*values: Any, **more: Any) -> Any:
            disk.write()
            return act(*values, **more)

        return call

    with (
        mock.patch.object(Path, "open", open_),
        mock.patch.object(os, "fsync", counted(os.fsync)),
        mock.patch.object(os, "replace", counted(os.replace)),
        mock.patch.object(os, "link", counted(os.link)),
        mock.patch.object(sqlite3, "connect", lambda *v, **m: connect(*v, **m, factory=Base)),
    ):
        yield disk


def _real(points: int) -> dict[str, object]:
    """Fill a small disk of its own, mounted for this, under a running worker; nothing where one may not mount."""
    with place() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", folder], capture_output=True).returncode:
            return {"disk_full_real_points": 0}
        try:
            return _filled(folder, points)
        finally:
            pid = worker_pid(folder)
            if pid is not None:
                kill(pid)
            _unmount(folder)


def _unmount(folder: Path) -> None:
    """Take a disk away again, at the latest when nobody uses it any more."""
    gc.collect()
    with suppress(RuntimeError):
        until(lambda: not subprocess.run(["umount", folder], capture_output=True).returncode, 10, nap=0.3)
    subprocess.run(["umount", "--lazy", folder], capture_output=True)


def _filled(folder: Path, points: int) -> dict[str, object]:
    desk = Desk((Walk,), folder)
    for seed in range(3):
        _done(desk, desk.submit(Walk(steps=20, seed=seed, megabytes=FRAME)))
    before, damaged, on, ends, notes, said = _state(desk.store), 0, 0, [], [], set()
    for point in range(points):
        run_id = desk.submit(Walk(steps=100_000, nap=0.02, seed=100 + point, megabytes=FRAME))
        until(lambda: desk.store.row(run_id).step > 2)  # noqa: B023
        behind = desk.submit(Walk(steps=3, seed=200 + point))
        _fill(folder, MOST * point // max(points - 1, 1))
        with suppress(RuntimeError):
            until(lambda: _gave_up(desk, run_id), 8)  # noqa: B023
        try:
            desk.stop(desk.submit(Walk(steps=3)))
        except StoreError as error:
            said.add(str(error).replace(str(folder), "FOLDER"))
        (folder / "filler").unlink()
        desk.tend()
        row = desk.store.row(run_id)
        if row.open:
            desk.stop(run_id)
            _done(desk, run_id)
            row = desk.store.row(run_id)
        ends.append((row.state, row.error))
        _done(desk, behind)
        waited = desk.store.row(behind)
        on += waited.state == "done"
        notes += [] if waited.state == "done" else [f"point {point}: the next run was {waited.state}, {waited.error}"]
        wrong = [key for key, value in before.items() if _state(desk.store).get(key) != value]
        damaged += len(wrong) + _unreadable(desk.store)
        notes += [f"point {point}: {key} is not as before" for key in wrong]
        for old in desk.store.rows("state IN ('failed','stopped','interrupted')"):
            desk.store.delete(old.id)
    return {
        "disk_full_real_points": points,
        "disk_full_real_damaged": damaged,
        "disk_full_real_queue_went_on": on,
        "disk_full_real_ends": {state: sum(end[0] == state for end in ends) for state in sorted({e[0] for e in ends})},
        "disk_full_real_sentences": sorted({end[1].replace(str(folder), "FOLDER") for end in ends}),
        "disk_full_real_refusals": sorted(said),
        "disk_full_notes": notes[:10],
    }


def _gave_up(desk: Desk, run_id: str) -> bool:
    """Return whether a run has ended or its worker is gone; a store that does not answer is no answer."""
    try:
        return not desk.store.row(run_id).open or not alive(desk.store, 0)
    except StoreError:
        return worker_pid(desk.store.folder) is None


def _fill(folder: Path, left: int) -> None:
    """Fill a disk up to so many bytes, in small pieces at the end."""
    with builtins.open(folder / "filler", "wb", buffering=0) as stream:
        for size in (2**20, 2**12):
            with suppress(OSError):
                while True:
                    stream.write(bytes(size))
        os.ftruncate(stream.fileno(), max(0, os.fstat(stream.fileno()).st_size - left))


def odd_folders() -> dict[str, object]:
    """Run in a folder with spaces and letters of many scripts, and ask of one that cannot be written."""
    with place("studio bücher 東京 #1 %20 ? ") as folder:
        desk = Desk((Walk,), folder)
        run_id = desk.submit(Walk(steps=20))
        _done(desk, run_id)
        works = desk.store.row(run_id).digest == hashlib.sha256(ending(Walk(steps=20))).hexdigest()
    said = "not tried: one may not mount here"
    with place() as folder:
        if not subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", folder], capture_output=True).returncode:
            try:
                said = _read_only(folder)
            finally:
                _unmount(folder)
    return {"unicode_folder_works": int(works), "read_only_refused": int(bool(said)), "read_only_says": said}


def _read_only(folder: Path) -> str:
    """Return what is said of a store on a disk that may only be read."""
    Desk((Walk,), folder)
    gc.collect()
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True, capture_output=True)
    try:
        Desk((Walk,), folder)
    except StoreError as error:
        return str(error).replace(str(folder), "FOLDER")
    return ""


def _order(store: Store, study: Walk) -> str:
    return store.add(Order(study=study.name, knobs=vars(study).copy(), version="1"))


def _pulled(store: Store, study: Walk, studies: dict[str, type]) -> None:
    _order(store, study)
    row = store.claim(0, "cpu", tuple(studies))
    assert row is not None
    pull(store, row, studies)


def _done(desk: Desk, run_id: str) -> None:
    def over() -> bool:
        desk.tend(1.0)
        return not desk.store.row(run_id).open

    until(over, 120, nap=0.05)


def _state(store: Store) -> dict[str, object]:
    """Return the bytes of every ended run's files and its row."""
    found: dict[str, object] = {}
    for row in store.rows():
        if not row.open:
            files = store.files(row.id)
            found |= {row.id: row} | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return found


def _unreadable(store: Store) -> int:
    wrong = 0
    for path in (store.folder / "runs").glob("*.safetensors"):
        try:
            snapshot_from(path.read_bytes(), Trail)
        except (ValueError, FileNotFoundError):
            wrong += path.exists()
    return wrong
