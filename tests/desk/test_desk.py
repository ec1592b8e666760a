"""The desk: runs outlive who asked for them, workers die without harm, and nothing is lost or done twice."""

import os
import signal
import sqlite3
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from desk.counting import Counting

from studio.core.runs import last
from studio.desk.desk import Desk
from studio.desk.store import Store, StoreError
from studio.desk.worker import alive
from studio.files.frames import snapshot_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("désk 1")
    yield made
    if (left := worker(made)) is not None:
        os.kill(left, signal.SIGKILL)


@pytest.fixture
def desk(folder):
    made = Desk((Counting,), folder)
    yield made
    for row in made.store.rows("state IN ('queued','running','held')"):
        made.stop(row.id)
    wait(lambda: not made.store.rows("state IN ('queued','running','held')"))


def wait(ready, seconds=40.0):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def worker(folder):
    """Return the process id of the worker that serves a store's folder, None where there is none."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"studio.desk.worker" in words and str(folder).encode() in words:
                return int(entry)
    return None


def test_a_run_gives_the_bytes_of_the_bare_generator(desk):
    study = Counting(steps=30, seed=5)
    run_id = desk.submit(study)
    frames = list(desk.watch(run_id))
    assert frames[-1].ended and not frames[-1].stopped
    assert snapshot_bytes(frames[-1].snapshot) == snapshot_bytes(last(study.run()))
    row = desk.store.row(run_id)
    assert (row.state, row.step, row.total, row.outcome) == ("done", 30, 30, frames[-1].snapshot.outcome)


def test_a_watcher_may_leave_come_back_and_bring_others(desk):
    run_id = desk.submit(Counting(steps=60, nap=0.02))
    first = list(islice(desk.watch(run_id), 2))
    ends = []
    others = [threading.Thread(target=lambda: ends.append(list(desk.watch(run_id))[-1])) for _ in range(10)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(30)
    assert len(ends) == 10 and all(end.ended and end.snapshot.step == 60 for end in ends)
    assert first[-1].snapshot.step < 60 and next(iter(desk.watch(run_id))).snapshot.step == 60


def test_hold_step_go_stop(desk):
    run_id = desk.submit(Counting(steps=5000, nap=0.005))
    wait(lambda: desk.store.row(run_id).step > 2)
    desk.pause(run_id)
    wait(lambda: desk.store.row(run_id).state == "held")
    at = desk.store.row(run_id).step
    time.sleep(0.3)
    assert desk.store.row(run_id).step == at
    desk.step(run_id)
    wait(lambda: desk.store.row(run_id).step == at + 1)
    desk.go(run_id)
    wait(lambda: desk.store.row(run_id).step > at + 5)
    desk.stop(run_id)
    end = list(desk.watch(run_id))[-1]
    assert end.stopped and at < end.snapshot.step < 5000
    again = desk.resume(run_id)
    wait(lambda: desk.store.row(again).step > end.snapshot.step)
    desk.stop(again)
    desk.step(again)
    wait(lambda: desk.store.row(again).state == "stopped")


def test_a_killed_worker_loses_nothing_and_its_run_goes_on(desk, folder):
    long, next_one = desk.submit(Counting(steps=400, nap=0.01)), desk.submit(Counting(steps=5))
    wait(lambda: desk.store.row(long).step > 5)
    os.kill(worker(folder), signal.SIGKILL)
    wait(lambda: not alive(desk.store, 0))
    desk.tend()
    assert desk.store.row(long).state == "interrupted"
    assert list(desk.watch(next_one))[-1].snapshot.step == 5
    kept = desk.snapshot(desk.store.row(long)).step
    again = desk.resume(long)
    end = list(desk.watch(again))[-1]
    assert kept > 0 and torch.equal(end.snapshot.walk, last(Counting(steps=400).run()).walk)


def test_failures_are_sentences(desk):
    for fails, words in (("sentence", "take fewer steps"), ("crash", "RuntimeError.*worker-0.log")):
        run_id = desk.submit(Counting(steps=4, fails=fails))
        with pytest.raises(ValueError, match=words):
            list(desk.watch(run_id))
        assert desk.store.row(run_id).state == "failed"


def test_runs_are_done_in_order_and_once(desk):
    ids = [desk.submit(Counting(steps=3, seed=seed)) for seed in range(12)]
    ends = [list(desk.watch(run_id))[-1] for run_id in ids]
    rows = [desk.store.row(run_id) for run_id in ids]
    assert all(end.snapshot.step == 3 for end in ends)
    started = [row.started for row in rows]
    assert started == sorted(started) and all(row.state == "done" for row in rows)


def test_a_study_the_worker_cannot_find_is_refused(folder):
    class Hidden(Counting):
        pass

    with pytest.raises(ValueError, match="a module of its own"):
        Desk((Hidden,), folder)


def test_the_queue_is_bounded_and_waiting_runs_can_be_stopped(tmp_path):
    store = Store(tmp_path)
    ids = [store.add("counting", {}, "1", most=64) for _ in range(64)]
    for _ in range(3):
        with pytest.raises(StoreError, match="64 runs are waiting"):
            store.add("counting", {}, "1", most=64)
    store.wish(ids[0], "stop")
    assert store.row(ids[0]).state == "stopped" and store.ahead(store.row(ids[5])) == 4
    store.add("counting", {}, "1", most=64)


def test_search_and_delete(tmp_path):
    store = Store(tmp_path)
    red = store.add("fusedream", {"prompt": "100% a red_fox"}, "1")
    blue = store.add("landscapes", {"loss": "ring"}, "1")
    assert [row.id for row in store.search()] == [blue, red]
    assert [row.id for row in store.search("red_fox 100%")] == [red] and not store.search("redXfox")
    assert [row.id for row in store.search(study="landscapes")] == [blue]
    with pytest.raises(StoreError, match="stop it first"):
        store.delete(red)
    store.wish(red, "stop")
    store.keep(red, b"x")
    store.delete(red)
    assert not list((tmp_path / "runs").iterdir())
    with pytest.raises(KeyError):
        store.row(red)
    for strange in ("../../etc/passwd", "a" * 31, "A" * 32, ""):
        with pytest.raises(KeyError):
            store.frame(strange)


def test_a_store_that_cannot_be_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(StoreError, match="STUDIO_HOME"):
        Store(tmp_path / "file")
    Store(tmp_path / "newer")
    with sqlite3.connect(tmp_path / "newer" / "runs.sqlite") as base:
        base.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer studio"):
        Store(tmp_path / "newer")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "runs.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="does not answer"):
        Store(tmp_path / "broken")


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    run_id = store.add("counting", {}, "1")
    store.keep(run_id, b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="free some space"):
        store.keep(run_id, b"after")
    assert store.frame(run_id) == b"before" and len(store.files(run_id)) == 1
