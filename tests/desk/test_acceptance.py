"""The desk at a small size: killed workers, crowds, changes of mind, full disks, broken recipes; more where slow."""

import pytest

from benchmarks import desk as bench
from benchmarks.desk_crowds import cancels, queue_burst, submitters
from benchmarks.desk_faults import full_at
from benchmarks.desk_kills import server_kills, worker_kills
from benchmarks.desk_recipes import recipes


def reached(part, figures):
    """Check every bar of a part that these figures are about."""
    missed = [said for said in bench.misses(part, figures) if said.split()[0] in figures]
    assert missed == [], figures


def test_killed_workers_leave_whole_files_and_lose_nothing():
    figures = worker_kills(kills=3, resumes=1)
    assert figures["worker_kills"] == 3 and figures["resumed"] + figures["killed_before_a_first_snapshot"] == 1
    reached("worker_kills", figures)


def test_a_full_queue_and_changes_of_mind():
    reached("burst", queue_burst(count=20, waiting=5) | {"burst_queue": 5})
    figures = cancels(count=5, warm=2)
    assert figures["cancels_kept"] == 5, figures


@pytest.mark.parametrize("base", [False, True], ids=["files", "all"])
@pytest.mark.parametrize("call", range(1, 11))
def test_a_disk_that_fills_up_damages_nothing(call, base):
    found = full_at(call, base)
    assert found.failed and not found.damaged and found.sentence and found.clear, found


def test_broken_recipes_are_refused_or_tamed():
    figures = recipes(300)
    assert figures["broken_refused"] > 50 and figures["broken_tamed"] > 50
    reached("faults", figures)


def test_a_missed_bar_is_named():
    assert bench.misses("overhead", {"overhead_percent": 6.0}) == ["overhead_percent is 6.0, not < 5"]
    assert bench.misses("overhead", {}) and not bench.misses("overhead", {"overhead_percent": 1.0})


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_many_submit_at_once_through_the_page():
    reached("submitters", submitters(count=8, programs=2))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["reload", "server_kills", "faults", "surfaces"])
def test_more_of_it(part):
    reached(part, bench.PARTS[part](True))


@pytest.mark.slow
def test_a_killed_server_forgets_nothing():
    reached("server_kills", server_kills(kills=3, each=2))
