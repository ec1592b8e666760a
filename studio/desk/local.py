"""A desk in this process: hand a study in, watch it, pause, step and stop it."""

__all__ = ["Desk", "Frame"]

import threading
import time
import uuid
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from studio.core.runs import Run
from studio.core.snapshots import Snapshot
from studio.studies.study import Study

NAP = 0.05


@dataclass(frozen=True, eq=False)
class Frame:
    """What a watcher gets: the newest snapshot, the seconds worked so far, and whether the run is held or over."""

    snapshot: Snapshot
    seconds: float
    held: bool = False
    ended: bool = False
    stopped: bool = False

    @property
    def remaining(self) -> float | None:
        """Return the expected seconds to the end at the pace so far, None before the first step."""
        done = self.snapshot.step
        return self.seconds / done * (self.snapshot.total - done) if done else None


@dataclass
class _Ticket:
    study: Study
    start: Snapshot | None
    owner: str = ""
    go: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    single: threading.Event = field(default_factory=threading.Event)
    watched: bool = False


class Desk:
    """Runs by id. The watcher's thread pulls the generator, so an unwatched run does not advance.

    All methods but `submit` take the id it returned; an unknown id is a `KeyError` from `watch`,
    and does nothing in `pause`, `resume`, `step` and `stop`, as a run may have ended meanwhile.
    """

    def __init__(self) -> None:
        self._tickets: dict[str, _Ticket] = {}

    @property
    def open_runs(self) -> int:
        """Return how many runs were handed in and have not ended."""
        return len(self._tickets)

    def submit(self, study: Study, start: Snapshot | None = None, owner: str = "") -> str:
        """Take a study in, optionally to go on from a snapshot, and return the run's id."""
        run_id = uuid.uuid4().hex
        ticket = _Ticket(study, start, owner)
        ticket.go.set()
        self._tickets[run_id] = ticket
        return run_id

    def watch(self, run_id: str, per_second: float = 8.0, least: float = 0.0) -> Generator[Frame, None, None]:
        """Run it and yield at most `per_second` frames a second, the newest each time, and always the last.

        Closing this (or `stop`) closes the run and frees it; a pause holds it between two steps.
        `least` spreads a short run evenly over that many seconds, so that one can see it move.
        """
        ticket = self._tickets[run_id]
        if ticket.watched:
            raise ValueError("this run is being watched already: open a new one")
        ticket.watched = True
        try:
            with closing(ticket.study.run(ticket.start)) as run:
                yield from _frames(run, ticket, 1.0 / per_second, least)
        finally:
            self._tickets.pop(run_id, None)

    def pause(self, run_id: str) -> None:
        """Hold the run after the step it is in."""
        self._signal(run_id, lambda ticket: ticket.go.clear())

    def resume(self, run_id: str) -> None:
        """Let a held run go on."""
        self._signal(run_id, lambda ticket: ticket.go.set())

    def step(self, run_id: str) -> None:
        """Let a held run take one step; a running one is held first."""

        def one(ticket: _Ticket) -> None:
            ticket.go.clear()
            ticket.single.set()

        self._signal(run_id, one)

    def stop(self, run_id: str) -> None:
        """End the run after the step it is in; its watcher gets the last snapshot once more, marked ended."""

        def end(ticket: _Ticket) -> None:
            ticket.stop.set()
            ticket.go.set()

        self._signal(run_id, end)

    def leave(self, owner: str) -> None:
        """End every run of an owner who has gone; those nobody watches yet are forgotten."""
        for run_id, ticket in list(self._tickets.items()):
            if ticket.owner == owner:
                self.stop(run_id)
                if not ticket.watched:
                    self._tickets.pop(run_id, None)

    def _signal(self, run_id: str, act: Any) -> None:
        ticket = self._tickets.get(run_id)
        if ticket is not None:
            act(ticket)


def _frames(run: Run[Any], ticket: _Ticket, gap: float, least: float) -> Generator[Frame, None, None]:
    worked, due, told = 0.0, 0.0, False
    snapshot: Any = None
    while not ticket.stop.is_set():
        held = not ticket.go.is_set() and not ticket.single.is_set()
        if held and snapshot is not None:
            if not told:
                told = True
                yield Frame(snapshot, worked, held=True)
            ticket.go.wait(NAP)
            continue
        ticket.single.clear()
        began = time.perf_counter()
        following = next(run, None)
        worked += time.perf_counter() - began
        if following is None:
            break
        snapshot, told = following, False
        if ticket.go.is_set() and time.monotonic() >= due:
            yield Frame(snapshot, worked)
            due = time.monotonic() + gap
        if least and ticket.go.is_set():
            nap = least / max(snapshot.total, 1)
            ticket.stop.wait(nap)
            worked += nap
    if snapshot is not None:
        yield Frame(snapshot, worked, ended=True, stopped=ticket.stop.is_set())
