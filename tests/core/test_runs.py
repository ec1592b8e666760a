"""Wrappers of a run keep the first and the last snapshot and close what they wrap."""

import pytest

from studio.core.runs import at_most, every, last, record, within


class Counter:
    """A run of numbers that remembers whether it was closed."""

    def __init__(self, n: int) -> None:
        self.n, self.closed = n, False

    def run(self):
        try:
            yield from range(self.n)
        finally:
            self.closed = True


@pytest.mark.parametrize(("n", "step", "expected"), [(7, 3, [0, 3, 6]), (8, 3, [0, 3, 6, 7]), (1, 5, [0]), (0, 2, [])])
def test_every_keeps_first_and_last(n, step, expected):
    assert list(every(Counter(n).run(), step)) == expected


def test_at_most_keeps_the_newest_and_the_last():
    now = [0.0]

    def clock():
        return now[0]

    def run():
        for index in range(100):
            now[0] += 0.01
            yield index

    shown = list(at_most(run(), per_second=10, clock=clock))
    assert shown[0] == 0 and shown[-1] == 99
    assert 8 <= len(shown) <= 12


def test_within_stops_at_the_clock_and_closes():
    now = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    counter = Counter(100)
    assert list(within(counter.run(), 2.5, clock=lambda: next(now))) == [0, 1, 2]
    assert counter.closed


@pytest.mark.parametrize("wrap", [lambda run: every(run, 2), lambda run: at_most(run, 5), lambda run: within(run, 60)])
def test_closing_a_wrapper_closes_the_run(wrap):
    counter = Counter(100)
    wrapped = wrap(counter.run())
    next(wrapped)
    wrapped.close()
    assert counter.closed


def test_last_and_record():
    assert last(Counter(5).run()) == 4
    assert record(Counter(5).run(), 2) == (0, 2, 4)
    with pytest.raises(ValueError, match="yielded nothing"):
        last(Counter(0).run())


@pytest.mark.parametrize("wrap", [lambda: every(Counter(1).run(), 0), lambda: at_most(Counter(1).run(), 0)])
def test_impossible_tempo_is_refused(wrap):
    with pytest.raises(ValueError, match="must be"):
        next(wrap())
