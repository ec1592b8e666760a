"""Snapshots survive the way to bytes and back; what is not one is refused with a sentence."""

import dataclasses

import pytest
import torch
from desk.counting import Count

from studio.catalog import CATALOG
from studio.core.runs import record
from studio.core.snapshots import Snapshot
from studio.files.frames import FRAME_LIMIT, snapshot_bytes, snapshot_from


def same(one, two):
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if dataclasses.is_dataclass(one):
        return type(one) is type(two) and all(
            same(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one)
        )
    return one == two


@pytest.mark.parametrize("study", CATALOG, ids=lambda study: study.name)
def test_every_study_s_snapshots_survive(study):
    for snapshot in record(study.tiny().run())[::2]:
        data = snapshot_bytes(snapshot)
        assert same(snapshot, snapshot_from(data, type(snapshot)))
        assert snapshot_bytes(snapshot_from(data, type(snapshot))) == data


def test_damaged_bytes_are_a_sentence():
    made = snapshot_bytes(Count(step=1, total=2, phase="x", walk=torch.ones(3), random=torch.zeros(0)))
    for data in (b"", b"x" * 100, made[:-5], made[:40], made.replace(b"walk", b"talk"), made[8:]):
        with pytest.raises(ValueError, match="this is no readable Count"):
            snapshot_from(data, Count)
    with pytest.raises(ValueError, match="at most"):
        snapshot_from(bytes(FRAME_LIMIT + 1), Count)


def test_what_cannot_be_kept_is_named():
    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Odd(Snapshot):
        thing: object

    with pytest.raises(ValueError, match="thing"):
        snapshot_bytes(Odd(step=0, total=1, phase="", thing=[1]))
