"""The pruning study: what it shows, the small network it gives, and the networks that users bring."""

from dataclasses import replace

import pytest
import torch
from networks import conv, settled
from torch import nn

from studio.core.runs import last, record
from studio.files import networks
from studio.nets.network_files import load_network, network_bytes
from studio.scenes import Curves, Pruning
from studio.studies.prune import HEAVY, Prune

TINY = Prune.tiny()


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """Opens a network as a user does and returns the knobs that choose it."""
    monkeypatch.setattr(networks, "user_cache", lambda: tmp_path)

    def open_(network):
        return Prune.opened(network_bytes(network))

    return open_


def small(classes=10):
    return settled(
        nn.Sequential(conv(1, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 7), nn.ReLU(), nn.Flatten(),
                      nn.Linear(448, classes)), dtype=torch.float32
    )  # fmt: skip


@pytest.mark.parametrize("network", ["mlp", "vgg", "mobilenet", "resnet"])
def test_a_pruned_network_comes_along_as_a_file(network, tmp_path):
    study = replace(TINY, network=network, macs=0.4)
    snapshot = last(study.run())
    pruned, edits = study.network_of(snapshot)
    path = tmp_path / "pruned.safetensors"
    path.write_bytes(network_bytes(pruned, edits))
    loaded, log = load_network(path)
    inputs = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(inputs), pruned(inputs)) and len(log) == len(edits) > 0
    assert sum(snapshot.widths) < sum(snapshot.sizes)
    before, after = snapshot.curve[0, 3], snapshot.curve[-1, 3]
    assert after <= 0.4 * before and f"{float(after):,.0f} multiply-accumulates" in snapshot.outcome


def test_the_view_follows_the_selection():
    snapshots = record(replace(TINY, network="resnet", frames=2).run())
    for snapshot in (snapshots[0], snapshots[len(snapshots) // 2], snapshots[-1]):
        scene, *curves = TINY.__class__.view(replace(TINY, network="resnet", frames=2), snapshot)
        assert isinstance(scene, Pruning) and all(isinstance(each, Curves) for each in curves)
        assert next(layer.name for layer in scene.layers if layer.state != "fixed") == "conv0"
        assert any(layer.state == "fixed" and layer.why for layer in scene.layers)
    assert {layer.state for layer in scene.layers} == {"done", "fixed"}
    kept = [int((layer.weights > 0).sum()) for layer in scene.layers if layer.state == "done"]
    assert tuple(kept) == snapshots[-1].widths and scene.decays and scene.imitation is not None


def test_refitting_changes_weights_and_lowers_what_tuning_has_left():
    study = replace(TINY, training=40, after=0, count=300, macs=0.25, width=0.2, target="original")
    plain, fitted = (last(replace(study, refit=refit).run()) for refit in (False, True))
    assert plain.widths == fitted.widths and not plain.state and fitted.state
    assert float(fitted.curve[-1, 5]) < float(plain.curve[-1, 5])


def test_a_network_of_ones_own_is_pruned_as_it_is(brought):
    network = small()
    knobs, words = brought(network)
    assert "4 layers" in words and f"{sum(p.numel() for p in network.parameters()):,} parameters" in words
    study = replace(TINY, **knobs, after=0)
    snapshot = last(study.run())
    assert sum(snapshot.widths) < 13 and snapshot.sizes == (6, 7) and "right" in snapshot.outcome
    assert study.forecast() and study.view(snapshot)
    whole, _ = replace(study, macs=1.0).network_of(last(replace(study, macs=1.0).run()))
    inputs = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(whole(inputs), network(inputs))


def test_a_network_for_other_data_is_refused_in_a_sentence(brought):
    knobs, _ = brought(small(classes=7))
    with pytest.raises(ValueError, match="10"):
        replace(TINY, **knobs).forecast()
    with pytest.raises(ValueError, match="open a network"):
        replace(TINY, network="file", file="").forecast()
    with pytest.raises(ValueError, match="open a network"):
        replace(TINY, network="file", file="../../etc/passwd").forecast()


def test_a_large_network_travels_as_its_choices_alone(brought):
    network = settled(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 800), nn.ReLU(), nn.Linear(800, 500), nn.ReLU(),
                      nn.Linear(500, 10)), dtype=torch.float32,
    )  # fmt: skip
    knobs, _ = brought(network)
    assert knobs["after"] == 0 and sum(p.numel() for p in network.parameters()) > HEAVY
    study = replace(TINY, **knobs, method="magnitude")
    snapshot = last(study.run())
    assert not snapshot.original and not snapshot.state and sum(snapshot.widths) < 1300
    pruned, _ = study.network_of(snapshot)
    assert pruned(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(ValueError, match="set all training to 0"):
        replace(study, after=5).forecast()


def test_too_wide_a_network_is_refused_before_it_runs():
    with pytest.raises(ValueError, match="width of 8"):
        next(replace(TINY, network="vgg", width=8.0).run())


def test_what_is_no_network_is_refused():
    for data in (b"", b"PK\x03\x04 a pickle", b"{}", bytes(range(256)) * 4):
        with pytest.raises(ValueError, match=": (save|check|export)") as found:
            Prune.opened(data)
        assert len(str(found.value)) < 300 and "\n" not in str(found.value)


def test_kept_networks_are_bounded(brought, tmp_path):
    for seed in range(networks.MOST + 3):
        networks.keep_network(bytes([seed]))
    assert len(list((tmp_path / "networks").iterdir())) == networks.MOST
