"""The desk: runs outlive who asked for them, workers die without harm, and nothing is lost or done twice."""

import importlib
import os
import signal
import sqlite3
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from desk import counting
from desk.counting import Counting

from studio.core.runs import last
from studio.desk.desk import Desk
from studio.desk.policy import Policy, policy_from
from studio.desk.store import Order, Store, StoreError
from studio.desk.tending import alive
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


def order(study="counting", owner="", **knobs):
    return Order(study=study, knobs=knobs, version="1", owner=owner)


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
    repeated = desk.again(long)
    list(desk.watch(repeated))
    assert desk.verdict(long, repeated)[0] and desk.store.row(repeated).step == kept
    again = desk.resume(long)
    end = list(desk.watch(again))[-1]
    assert kept > 0 and torch.equal(end.snapshot.walk, last(Counting(steps=400).run()).walk)


def test_failures_are_sentences(desk):
    for fails, words in (("sentence", "take fewer steps"), ("crash", "RuntimeError.*log of the worker")):
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
    ids = [store.add(order()) for _ in range(64)]
    for _ in range(3):
        with pytest.raises(StoreError, match="64 runs are waiting"):
            store.add(order())
    store.wish(ids[0], "stop")
    assert store.row(ids[0]).state == "stopped" and store.ahead(store.row(ids[5])) == 4
    store.add(order())


def test_search_and_delete(tmp_path):
    store = Store(tmp_path)
    red = store.add(order("fusedream", prompt="100% a red_fox"))
    blue = store.add(order("landscapes", loss="ring"))
    assert [row.id for row in store.search()] == [blue, red]
    assert [row.id for row in store.search("red_fox 100%")] == [red] and not store.search("redXfox")
    assert [row.id for row in store.search(studies=["landscapes"])] == [blue]
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
    run_id = store.add(order())
    store.keep(run_id, b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="free some space"):
        store.keep(run_id, b"after")
    assert store.frame(run_id) == b"before" and len(store.files(run_id)) == 1


def test_one_visitor_cannot_fill_the_queue(tmp_path):
    store = Store(tmp_path)
    for _ in range(3):
        store.add(order(owner="one"), each=3)
    with pytest.raises(StoreError, match="3 runs of yours"):
        store.add(order(owner="one"), each=3)
    store.add(order(owner="two"), each=3)


def test_a_policy_caps_knobs_and_time(folder):
    strict = policy_from(["steps=50", "minutes=0.005", "waiting=2"], Policy())
    assert strict.waiting == 2
    desk = Desk((Counting,), folder, policy=strict)
    with pytest.raises(ValueError, match="steps is at most 50"):
        desk.submit(Counting(steps=51))
    end = list(desk.watch(desk.submit(Counting(steps=50, nap=0.05))))[-1]
    assert end.stopped and 0 < end.snapshot.step < 50 and "the limit of this studio" in end.row.error
    for wrong in ("steps", "steps=x", "minutes=0", "steps=-3"):
        with pytest.raises(ValueError, match="--limit"):
            policy_from([wrong], Policy())


def test_a_run_can_be_repeated_to_the_byte_however_it_ended(desk):
    whole = desk.submit(Counting(steps=40))
    list(desk.watch(whole))
    cut = desk.submit(Counting(steps=4000, nap=0.005))
    wait(lambda: desk.store.row(cut).step > 3)
    desk.stop(cut)
    list(desk.watch(cut))
    on = desk.submit(Counting(steps=60), parent=whole)
    list(desk.watch(on))
    for first in (whole, cut, on):
        second = desk.again(first)
        list(desk.watch(second))
        assert desk.verdict(first, second)[0] and desk.store.row(first).step == desk.store.row(second).step
    other = desk.submit(Counting(steps=40, seed=8))
    list(desk.watch(other))
    assert desk.verdict(whole, other) == (False, "the bytes differ (same version, same device)")


def test_the_one_beside_stops_with_it(desk):
    main = desk.submit(Counting(steps=5000, nap=0.005))
    plain = desk.submit(Counting(steps=5000, nap=0.005, seed=8), beside=main)
    wait(lambda: desk.store.row(main).step > 2)
    desk.stop(main)
    wait(lambda: desk.store.row(main).state == desk.store.row(plain).state == "stopped")


def test_a_film_is_kept_on_the_way(desk):
    run_id = desk.submit(Counting(steps=200, nap=0.01))
    list(desk.watch(run_id))
    film = desk.film(desk.store.row(run_id))
    steps = [snapshot.step for snapshot in film]
    assert 10 < len(film) <= 60 and steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == 200


def test_closing_the_desk_interrupts_what_it_handed_in(folder):
    one, other = Desk((Counting,), folder), Desk((Counting,), folder)
    kept = other.submit(Counting(steps=300, nap=0.01))
    mine, queued = one.submit(Counting(steps=300, nap=0.01)), one.submit(Counting())
    wait(lambda: one.store.row(kept).step > 2)
    one.close()
    wait(lambda: one.store.row(mine).state == one.store.row(queued).state == "interrupted")
    assert one.store.row(kept).open
    other.close()
    wait(lambda: other.store.row(kept).state == "interrupted")
    assert list(one.watch(one.resume(kept)))[-1].snapshot.step == 300


def test_a_study_of_a_notebook_runs_inside(folder):
    class Hidden(Counting):
        pass

    desk = Desk((Hidden,), folder, workers=0)
    end = list(desk.watch(desk.submit(Hidden(steps=30))))[-1]
    assert end.snapshot.step == 30 and desk.store.row(end.row.id).state == "done"


def test_a_worker_that_cannot_start_is_told_of(tmp_path, monkeypatch):
    (tmp_path / "fleeting.py").write_text(Path(counting.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    fleeting = importlib.import_module("fleeting")
    desk = Desk((fleeting.Counting,), tmp_path / "home")
    (tmp_path / "fleeting.py").rename(tmp_path / "gone.py")
    first = desk.submit(fleeting.Counting())
    with pytest.raises(ValueError, match=r"worker-0\.log"):
        list(desk.watch(first))
    assert desk.store.row(first).state == "queued"
    (tmp_path / "gone.py").rename(tmp_path / "fleeting.py")
    assert list(desk.watch(desk.submit(fleeting.Counting(steps=3))))[-1].snapshot.step == 3
    assert desk.store.row(first).state == "done" and not desk.store.row(first).error
    os.kill(worker(tmp_path / "home"), signal.SIGKILL)
