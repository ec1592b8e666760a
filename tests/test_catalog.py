"""The contract every study of the catalogue keeps, on its tiny version."""

import dataclasses
import gc
import weakref
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch

from studio.catalog import CATALOG
from studio.core.controls import Choice, Range, Words, controls, from_query, to_query
from studio.core.runs import last, record
from studio.core.snapshots import MAX_BYTES, Snapshot, nbytes
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.scenes import Curves, Images, Matrix, Members, Molecules, Network, Points, Pruning
from studio.studies.study import Study, snapshot_type

STUDIES = pytest.mark.parametrize("study", CATALOG, ids=lambda study: study.name)


def leaves(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from leaves(item)


def tensors(snapshot):
    for field in dataclasses.fields(snapshot):
        yield from leaves(getattr(snapshot, field.name))


def state(snapshots):
    return [
        (s.step, s.phase, s.outcome, [t.numpy(force=True).tobytes() for t in tensors(s)]) for s in snapshots
    ]  # fmt: skip


@cache
def recorded(study):
    """The tiny run of a study, shared by the tests: nobody changes a snapshot."""
    return record(study.tiny().run())


def test_names_are_distinct():
    names = [study.name for study in CATALOG]
    assert len(set(names)) == len(names) and all(name.isidentifier() and name.islower() for name in names)


@STUDIES
def test_it_introduces_itself(study):
    assert issubclass(study, Study) and study.title and study.summary.endswith(".") and study.papers
    assert dataclasses.fields(study)
    for control in controls(study):
        assert control.knob.label, control.name
        assert control.bound is not None or control.kind is bool, f"{control.name} has no bound"


@STUDIES
def test_snapshots_are_frozen_finite_light_and_detached(study):
    snapshots = recorded(study)
    assert len(snapshots) >= 3
    assert snapshots[-1].outcome and not any(s.outcome for s in snapshots[:-1])
    for snapshot in snapshots:
        assert isinstance(snapshot, Snapshot) and 0 <= snapshot.step <= snapshot.total
        with pytest.raises(dataclasses.FrozenInstanceError):
            snapshot.step = 0
        assert nbytes(snapshot) <= MAX_BYTES
        for tensor in tensors(snapshot):
            assert not tensor.requires_grad and tensor.grad_fn is None
            assert torch.isfinite(tensor).all() or not tensor.is_floating_point()
    steps = [s.step for s in snapshots]
    assert steps == sorted(steps) and steps[-1] == snapshots[-1].total


@STUDIES
def test_snapshots_do_not_change_after_they_are_yielded(study):
    run = study.tiny().run()
    first = next(run)
    before = state([first])
    list(islice(run, 3))
    assert state([first]) == before


@STUDIES
def test_same_seed_same_bytes_and_another_seed_other_bytes(study):
    tiny = study.tiny()
    one, two = state(recorded(study)), state(record(tiny.run()))
    other = state(record(dataclasses.replace(tiny, seed=tiny.seed + 1).run()))
    assert one == two
    assert one != other


@STUDIES
def test_close_frees_the_run(study):
    run = study.tiny().run()
    next(run)
    held = [
        weakref.ref(value) for value in run.gi_frame.f_locals.values() if isinstance(value, torch.Tensor | Snapshot)
    ]
    assert held and all(ref() is not None for ref in held)
    run.close()
    assert run.gi_frame is None
    gc.collect()
    assert all(ref() is None for ref in held)


@STUDIES
def test_gradients_are_as_they_were_between_steps(study):
    for _ in study.tiny().run():
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@STUDIES
def test_view_gives_known_scenes_without_changing_the_snapshot(study):
    snapshots = recorded(study)
    for snapshot in (snapshots[0], snapshots[-1]):
        before = state([snapshot])
        scenes = study.tiny().view(snapshot)
        known = Images | Points | Curves | Members | Network | Matrix | Molecules | Pruning
        assert scenes and all(isinstance(scene, known) for scene in scenes)
        for scene in scenes:
            for field in dataclasses.fields(scene):
                value = getattr(scene, field.name)
                assert not isinstance(value, torch.Tensor)
                empty = isinstance(scene, Matrix) and field.name == "values"  # has cells where there is no number yet
                assert empty or not isinstance(value, np.ndarray) or np.isfinite(value).all()
        assert state([snapshot]) == before


@STUDIES
def test_every_bound_names_its_field(study):
    for control in controls(study):
        wrong = {
            Range: lambda bound: [bound.low - 1, bound.high + 1, "text"],
            Choice: lambda bound: ["no such option", 3],
            Words: lambda bound: ["x" * (bound.limit + 1), 3],
            type(None): lambda bound: ["text"],
        }[type(control.bound)](control.bound)
        for value in wrong:
            value = int(value) if control.kind is int and isinstance(value, float) else value
            with pytest.raises(ValueError, match=control.name):
                dataclasses.replace(study(), **{control.name: value})


@STUDIES
def test_query_round_trip(study):
    for made in (study(), study.tiny(), dataclasses.replace(study(), seed=123456)):
        assert from_query(study, to_query(made)) == made


@STUDIES
def test_the_forecast_is_a_sentence(study):
    assert study().forecast().endswith(".")


@STUDIES
def test_a_run_goes_on_from_a_kept_snapshot_as_if_nothing_had_happened(study):
    snapshots = recorded(study)
    for middle in (snapshots[1], snapshots[len(snapshots) // 2]):
        kept = snapshot_from(snapshot_bytes(middle), snapshot_type(study))
        assert snapshot_bytes(kept) == snapshot_bytes(middle)
        assert snapshot_bytes(last(study.tiny().run(kept))) == snapshot_bytes(snapshots[-1])
