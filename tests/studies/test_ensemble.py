"""The ensemble study: what its pictures show, what it says when it cannot run, and that a page can open it anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from studio.core.controls import controls, from_query
from studio.core.runs import last, record
from studio.core.snapshots import MAX_BYTES, nbytes
from studio.problems.digits import labelled
from studio.scenes import Curves, Images, Members
from studio.studies.ensemble import Ensemble

TOYS = ("moons", "spirals")


def seen(study):
    end = last(study.run())
    return end, study.view(end)


def test_digits_show_what_members_dispute():
    """The pictures are the most disputed of the test set, and every caption holds all votes."""
    end, (pictures, members, losses, tests) = seen(replace(Ensemble.tiny(), members=5))
    assert isinstance(pictures, Images) and pictures.pixels.shape == (9, 128, 128, 3)
    assert isinstance(members, Members) and isinstance(losses, Curves) and isinstance(tests, Curves)
    for caption in pictures.captions:
        counts = [part.partition(" x")[2] or "1" for part in caption.partition("votes ")[2].split(", ")]
        assert sum(map(int, counts)) == 5 and len(counts) >= 2, caption
    blocks = pictures.pixels.reshape(9, 8, 16, 8, 16, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all(), "every pixel of a digit is one square block"
    assert members.losses.shape == members.distances.shape == (5,) and len(members.captions) == 5
    assert (members.distances >= 0).all() and (members.distances <= 100).all()
    assert end.scores is not None and f"{end.scores.accuracy:.1%} right" in end.outcome


@pytest.mark.parametrize("data", TOYS)
def test_toys_show_a_map_a_member_their_mean_and_where_they_differ(data):
    study = replace(Ensemble.tiny(), data=data)
    _, (pictures, *_) = seen(study)
    assert pictures.pixels.shape == (3 + 2, 192, 192, 3) and len(pictures.captions) == 5
    split = pictures.pixels[-1]
    assert (split == 255).any() and (split < 255).any(), "somewhere they agree and somewhere they do not"
    maps = pictures.pixels[:3]
    assert (maps != maps[:1]).any(), "members start apart"


def test_the_first_snapshot_has_no_losses_to_draw():
    study = Ensemble.tiny()
    pictures, members, *curves = study.view(next(study.run()))
    assert len(curves) == 1 and np.isfinite(members.losses).all() and pictures.captions


def test_the_noised_batch_is_only_a_choice():
    """The noise knob does nothing unless the noised batch is chosen, and then it changes the run."""
    quiet, loud = (last(replace(Ensemble.tiny(), noise=noise).run()) for noise in (0.1, 1.0))
    assert torch.equal(quiet.parameters, loud.parameters)
    noised = replace(Ensemble.tiny(), diversify_on="noised batch")
    assert not torch.equal(last(noised.run()).parameters, loud.parameters)


def test_the_baseline_is_the_same_without_diversity():
    study = Ensemble.tiny()
    plain = study.baseline()
    assert plain == replace(study, method="plain") and plain.baseline() is None
    assert torch.equal(next(plain.run()).parameters, next(study.run()).parameters)


def test_a_run_goes_on_from_any_snapshot():
    study = replace(Ensemble.tiny(), steps=6)
    snapshots = record(study.run())
    assert torch.equal(last(study.run(start=snapshots[2])).parameters, snapshots[-1].parameters)


def test_missing_data_are_a_sentence_before_the_run(monkeypatch):
    monkeypatch.delenv("STUDIO_DATA", raising=False)
    labelled.cache_clear()
    study = replace(Ensemble.tiny(), data="fashion-mnist")
    for ask in (study.forecast, study.run):
        with pytest.raises(ValueError, match="set STUDIO_DATA to the folder that holds it, or choose data 'digits'"):
            ask()


def test_no_link_can_name_a_file():
    """A page's knobs are numbers and names from fixed lists: none takes a path."""
    assert all(control.kind is not str or hasattr(control.bound, "options") for control in controls(Ensemble))
    assert from_query(Ensemble, "data=/etc/passwd&folder=/etc") == Ensemble()


def test_the_largest_state_fits_a_snapshot_and_a_larger_one_is_refused():
    large = replace(Ensemble.tiny(), members=12, width=96, depth=4, steps=1)
    assert nbytes(next(large.run())) <= MAX_BYTES
    with pytest.raises(ValueError, match="take fewer members or a smaller width"):
        replace(large, width=128).run()
    with pytest.raises(ValueError, match="training must leave examples to test on"):
        replace(Ensemble.tiny(), training=1797).forecast()
