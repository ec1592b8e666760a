"""The desk runs, holds, steps and stops a study, and frees it."""

import gc
import threading
import time
import weakref
from dataclasses import dataclass
from typing import ClassVar

import pytest

from studio.core.snapshots import Snapshot
from studio.desk.local import Desk
from studio.studies.study import Study


class Box:
    """Something a run holds, to be seen freed."""


@dataclass(frozen=True)
class Slow(Study):
    name: ClassVar[str] = "slow"
    title: ClassVar[str] = "Slow"
    summary: ClassVar[str] = ""
    papers: ClassVar = ()
    steps: int = 20
    held: ClassVar[list] = []

    def run(self, start=None):
        box = Box()
        self.held.append(weakref.ref(box))
        for step in range(self.steps + 1):
            time.sleep(0.005)
            yield Snapshot(step=step, total=self.steps, phase="slow", outcome="done" if step == self.steps else "")

    def view(self, snapshot):
        return ()

    @classmethod
    def tiny(cls):
        return cls()


def test_frames_end_with_the_last_snapshot():
    desk = Desk()
    frames = list(desk.watch(desk.submit(Slow()), per_second=20))
    assert frames[0].snapshot.step == 0
    assert frames[-1].ended and not frames[-1].stopped and frames[-1].snapshot.outcome == "done"
    assert len(frames) < 20 and frames[-1].seconds > 0.05


def test_stop_ends_soon_and_keeps_the_newest():
    desk = Desk()
    run_id = desk.submit(Slow(steps=100_000))
    threading.Timer(0.1, desk.stop, [run_id]).start()
    last = list(desk.watch(run_id))[-1]
    assert last.ended and last.stopped and 0 < last.snapshot.step < 100_000


def test_pause_step_resume():
    desk = Desk()
    run_id = desk.submit(Slow(steps=200))
    frames = desk.watch(run_id, per_second=1000)
    assert next(frames).snapshot.step == 0
    desk.pause(run_id)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(frame.snapshot.step for frame in frames))
    reader.start()
    time.sleep(0.3)
    still = list(seen)
    time.sleep(0.3)
    assert seen == still
    desk.step(run_id)
    time.sleep(0.3)
    assert len(seen) == len(still) + 1
    desk.resume(run_id)
    reader.join(10)
    assert seen[-1] == 200


def test_closing_the_watch_frees_the_run():
    desk = Desk()
    frames = desk.watch(desk.submit(Slow()))
    next(frames)
    frames.close()
    gc.collect()
    assert Slow.held[-1]() is None


def test_a_run_is_watched_once_and_forgotten_after():
    desk = Desk()
    run_id = desk.submit(Slow(steps=2))
    frames = desk.watch(run_id)
    next(frames)
    with pytest.raises(ValueError, match="watched already"):
        next(desk.watch(run_id))
    list(frames)
    with pytest.raises(KeyError):
        next(desk.watch(run_id))
    desk.stop(run_id)


def test_remaining_time_follows_the_pace():
    desk = Desk()
    frames = list(desk.watch(desk.submit(Slow(steps=40)), per_second=50))
    assert frames[0].remaining is None
    middle = next(frame for frame in frames if frame.snapshot.step >= 20)
    assert 0.02 < middle.remaining < 2.0
