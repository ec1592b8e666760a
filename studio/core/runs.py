"""A run is a generator of snapshots: `next` is a step, not calling it is a pause, `close` is a stop."""

__all__ = ["Run", "at_most", "every", "last", "record", "within"]

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

S = TypeVar("S")
Run = Generator[S, None, None]


def every(run: Run[S], n: int) -> Run[S]:
    """Yield the first snapshot, then one in `n`, and always the last; closing this closes `run`."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}: 1 keeps every snapshot")
    pending: list[S] = []
    with closing(run):
        for index, snapshot in enumerate(run):
            pending = [snapshot]
            if index % n == 0:
                pending.clear()
                yield snapshot
        yield from pending


def at_most(run: Run[S], per_second: float, clock: Callable[[], float] = time.monotonic) -> Run[S]:
    """Yield the newest snapshot at most `per_second` times a second, and always the first and the last.

    The run goes at its own speed; what lies between two frames is dropped (the latest wins).
    """
    if per_second <= 0:
        raise ValueError(f"per_second must be positive, got {per_second}: 8 is a calm picture")
    due = float("-inf")
    pending: list[S] = []
    with closing(run):
        for snapshot in run:
            pending = [snapshot]
            if clock() >= due:
                pending.clear()
                yield snapshot
                due = clock() + 1.0 / per_second
        yield from pending


def within(run: Run[S], seconds: float, clock: Callable[[], float] = time.monotonic) -> Run[S]:
    """Yield snapshots until `seconds` have passed, then close the run; the first is always yielded."""
    end = clock() + seconds
    with closing(run):
        for snapshot in run:
            yield snapshot
            if clock() >= end:
                return


def last(run: Run[S]) -> S:
    """Run to the end and return the last snapshot; a run without any is a `ValueError`."""
    found: list[S] = []
    with closing(run):
        for snapshot in run:
            found = [snapshot]
    if not found:
        raise ValueError("the run yielded nothing: a run gives at least one snapshot")
    return found[0]


def record(run: Run[S], n: int = 1) -> tuple[S, ...]:
    """Return every `n`-th snapshot of a run (with the first and the last) as a tuple."""
    return tuple(every(run, n))
