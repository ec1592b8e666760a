"""The studies that grow networks: their worlds, their views, and the network that one can take along."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from studio.core.runs import last, record
from studio.nets.network_files import load_network, network_bytes
from studio.scenes import Curves, Images, Network
from studio.studies.split_images import SplitImages
from studio.studies.split_toy import SplitToy

TOY = SplitToy(rounds=2, stage=6)


def test_signed_splitting_escapes_where_positive_splitting_stalls():
    stuck, out = (last(replace(TOY, method=method, stage=10).run()) for method in ("s2d", "s3d"))
    assert stuck.widths == (1,) and stuck.curve[-1, 5] == pytest.approx(4.870e-3, abs=1e-5)
    assert "no split lowers the loss any more" in stuck.outcome
    assert out.curve[-1, 5] < 1e-5 and sum(out.widths) > 1


def test_a_toy_shows_the_function_its_neurons_and_the_network():
    snapshots = record(TOY.run())
    for snapshot in (snapshots[0], snapshots[8], snapshots[-1]):
        fit, added, network, *curves = TOY.view(snapshot)
        assert isinstance(network, Network) and all(isinstance(each, Curves) for each in (fit, added, *curves))
        total = sum(series.y for series in added.series)
        assert np.allclose(total, fit.series[1].y), "the network is the sum of its neurons"
        assert network.reads.shape == (1, sum(snapshot.widths))
    assert len(network.splits) > 0 and network.round == 2 and network.scored
    for split in network.splits:
        assert split.neuron in network.layers[0].ids and split.predicted < 0


def test_the_plane_is_shown_as_two_maps():
    study = SplitToy(function="teacher", rounds=1, stage=1)
    maps = study.view(next(study.run()))[0]
    assert isinstance(maps, Images) and len(maps.pixels) == 2


@pytest.mark.parametrize("network", ["mlp", "vgg", "mobilenet"])
def test_a_grown_classifier_comes_along_as_a_file(network, tmp_path):
    study = replace(SplitImages.tiny(), family=network, rounds=2, share=0.6)
    snapshot = last(study.run())
    grown, edits = study.network_of(snapshot)
    path = tmp_path / "grown.safetensors"
    path.write_bytes(network_bytes(grown, edits))
    loaded, log = load_network(path)
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(loaded.eval()(inputs), grown(inputs)) and len(log) == len(edits) > 0
    assert sum(snapshot.widths) > sum(snapshot.seed_widths)


def test_scratch_has_the_widths_that_growth_would_reach():
    study = replace(SplitImages.tiny(), method="scratch", rounds=3, share=0.5)
    snapshot = last(study.run())
    assert snapshot.widths == (round(3 * 1.5**3),) and snapshot.total == 4 * study.stage


@pytest.mark.parametrize("method", ["energy", "s3d", "random", "net2net", "new"])
def test_every_method_runs_and_is_drawn(method):
    study = replace(SplitImages.tiny(), method=method, share=0.7)
    snapshot = last(study.run())
    network, *curves = study.view(snapshot)
    assert sum(snapshot.widths) > 3 and network.scored == (method in ("energy", "s3d"))
    assert network.unit == ("MACs" if method == "energy" else "neurons") and len(curves) == 5


def test_baselines_are_plainer():
    assert TOY.baseline() == replace(TOY, method="s2d")
    assert replace(TOY, method="s2d").baseline() == replace(TOY, method="random")
    assert replace(TOY, method="new").baseline() is None
    assert replace(SplitImages(), method="random").baseline() is None


def test_what_does_not_fit_is_said_before_a_run():
    with pytest.raises(ValueError, match="cannot read data"):
        SplitImages(family="pointnet").forecast()
    with pytest.raises(ValueError, match="training must be"):
        SplitImages(training=5000).forecast()
    with pytest.raises(ValueError, match="STUDIO_DATA"):
        SplitImages(data="cifar-10", family="vgg").forecast()
