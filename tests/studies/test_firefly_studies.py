"""Firefly's studies: what a snapshot looks like, what competed, and the network that one can take along."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from studio.core.runs import last, record
from studio.methods.continual import CONTINUAL
from studio.nets.network_files import load_network, network_bytes
from studio.scenes import Curves, Matrix, Network
from studio.studies.continual import ContinualTasks
from studio.studies.firefly import Firefly

TASKS = replace(ContinualTasks.tiny(), tasks=5, training=300, share=1.0)


def loaded(tmp_path, network, edits):
    path = tmp_path / "network.safetensors"
    path.write_bytes(network_bytes(network, edits))
    return load_network(path)


def alike(one, other, count=3):
    inputs = torch.randn(count, 1, 8, 8)
    with torch.no_grad():
        return torch.equal(one(inputs), other(inputs))


def books_kept(scene):
    """Ids are unique across layers, parents are known, candidates stand at layers there are."""
    ids = np.concatenate([layer.ids for layer in scene.layers])
    assert len(set(ids.tolist())) == len(ids) > 0
    for layer in scene.layers:
        sizes = {len(getattr(layer, name)) for name in ("ids", "parents", "born", "shares", "gains", "costs")}
        assert sizes == {len(layer.ids)} == {len(layer.schemes)}
        assert scene.reads.shape[1] == len(scene.layers[-1].ids)
    names = [layer.name for layer in scene.layers]
    assert len(set(names)) == len(names)
    for candidate in scene.candidates:
        assert candidate.layer in names and candidate.kind in ("split", "new", "layer", "unlock")
        assert candidate.cost > 0 and np.isfinite(candidate.gain) and (candidate.gain < 0 or not candidate.chosen)
    for link in scene.links:
        ends = len(scene.layers[link.target].ids), len(scene.layers[link.source].ids)
        assert link.strengths.shape == ends and 0 <= link.strengths.min() <= link.strengths.max() <= 1 + 1e-9


def lineage_kept(scene):
    """Copies come from neurons of their own layer that belong to an earlier task; how many there are."""
    copies = 0
    for layer in scene.layers:
        known = dict(zip(layer.ids.tolist(), layer.born.tolist(), strict=True))
        for parent, born in zip(layer.parents.tolist(), layer.born.tolist(), strict=True):
            assert parent == -1 or known[parent] < born
            copies += parent >= 0
    return copies


@pytest.mark.parametrize("family", ["mlp", "mobilenet"])
def test_firefly_shows_its_candidates_and_gives_its_network(family, tmp_path):
    study = replace(Firefly.tiny(), family=family, stage=2, share=0.6, search_steps=4)
    inserted, scored, snapshots = [], 0, record(study.run())
    for snapshot in snapshots:
        scene, *curves = study.view(snapshot)
        assert isinstance(scene, Network) and all(isinstance(each, Curves) for each in curves)
        books_kept(scene)
        assert scene.unit == "neurons" and scene.round == snapshot.round and not scene.eras
        assert bool(scene.candidates) == bool(len(snapshot.candidate_gains))
        scored += snapshot.phase == "scoring"
        if snapshot.phase == "scoring":
            spent = sum(candidate.cost for candidate in scene.candidates if candidate.chosen)
            assert 0 < spent <= scene.budget
        inserted = [layer.name for layer in scene.layers if layer.name.startswith("deeper")]
        assert not any(layer.name.endswith(".inn") for layer in scene.layers)
    assert scored == study.rounds
    assert {candidate.kind for candidate in scene.candidates} >= {"split", "new"}
    network, edits = study.network_of(snapshots[-1])
    again, log = loaded(tmp_path, network, edits)
    assert alike(again, network.eval()) and len(log) == len(edits)
    problem = study._problem()
    assert problem.accuracy(network) == pytest.approx(float(snapshots[-1].curve[-1, 6]))
    assert bool(inserted) == any(name.startswith("deeper") for name, _ in network.named_modules())


def test_inserted_layers_are_layers_of_the_scene_and_of_the_file(tmp_path):
    study = Firefly(rounds=2, stage=40, share=1.0, layers=1, splits=False, fresh=False, search_steps=20)
    snapshots = record(study.run())
    network, edits = study.network_of(snapshots[-1])
    inserted = [name for name, _ in network.named_children() if name.startswith("deeper")]
    scene = study.view(snapshots[-1])[0]
    books_kept(scene)
    assert inserted and set(inserted) <= {layer.name for layer in scene.layers}
    again, log = loaded(tmp_path, network, edits)
    assert alike(again, network.eval()) and len(log) == len(edits)
    assert {candidate.kind for snapshot in snapshots for candidate in study.view(snapshot)[0].candidates} == {"layer"}
    wider = last(replace(study, layers=0, fresh=True).run())
    assert len(study.view(wider)[0].layers) == 1, "with no layers it grows wider only"


def test_firefly_is_compared_with_random_neurons():
    study = Firefly()
    assert study.baseline() == replace(study, method="new") and replace(study, method="new").baseline() is None
    assert "Begins with widths 3" in study.forecast()
    plain = last(replace(Firefly.tiny(), method="s2d").run())
    assert not study.view(plain)[0].candidates


@pytest.mark.parametrize(
    "study, fault",
    [
        (Firefly(data="fashion-mnist"), "data 'fashion-mnist' needs .*: set STUDIO_DATA"),
        (Firefly(family="pointnet"), "cannot read data"),
        (ContinualTasks(data="fashion-mnist"), "data 'fashion-mnist' needs .*: set STUDIO_DATA"),
        (ContinualTasks(tasks=3), "tasks must divide the 10 classes of data 'digits' evenly, got 3: take 2, 5 or 10"),
        (ContinualTasks(training=1797), "training must be between 2 and 1,796"),
    ],
)
def test_what_does_not_fit_is_said_before_a_run(study, fault, monkeypatch):
    monkeypatch.delenv("STUDIO_DATA", raising=False)
    for said in (study.forecast, lambda: next(study.run())):
        with pytest.raises(ValueError, match=fault):
            said()


@pytest.mark.parametrize("method", CONTINUAL)
def test_tasks_are_drawn_as_eras_a_matrix_and_curves(method):
    study = replace(TASKS, method=method)
    titles = ("0 and 1", "2 and 3", "4 and 5", "6 and 7", "8 and 9")
    eras = set()
    for snapshot in record(study.run()):
        network, *rest = study.view(snapshot)
        assert isinstance(network, Network) and network.title == (
            f"Task {snapshot.task + 1} of 5: {titles[snapshot.task]}"
        )
        books_kept(network)
        assert network.outputs == "2 classes" and len(network.reads) == 2 and network.inputs == "8 x 8 pixels"
        newest = max(int(layer.born.max()) for layer in network.layers)
        assert network.eras == titles[: newest + 1] and newest <= snapshot.task
        eras.add(len(network.eras))
        lineage_kept(network)
        if method == "firefly" and not snapshot.outcome:
            head, source = study.network_of(snapshot)[0].head.weight.detach(), snapshot.source[-1]
            shared = network.reads[:, source[source >= 0].numpy()]
            assert np.array_equal(shared, head[:, source >= 0].double().numpy())
            assert np.count_nonzero(network.reads) <= head.numel() and np.any(network.reads)
        matrices, curves = rest[: bool(snapshot.learnt)], rest[bool(snapshot.learnt) :]
        assert all(isinstance(each, Curves) for each in curves)
        assert len(curves) == 2 + bool(len(snapshot.losses)) + 2 * bool(snapshot.learnt)
        for matrix in matrices:
            assert isinstance(matrix, Matrix) and matrix.columns == titles
            assert matrix.rows == titles[: snapshot.learnt] and matrix.values.shape == (snapshot.learnt, 5)
            above = np.triu(np.ones((5, 5), bool), 1)[: snapshot.learnt]
            assert np.array_equal(np.isnan(matrix.values), above)
            assert 0 <= np.nanmin(matrix.values) <= np.nanmax(matrix.values) <= 100
            assert np.nanmax(matrix.values) > 1, "they are percentages"
            assert curves[0].series[0].y.tolist() == snapshot.sizes[: snapshot.learnt].tolist()
            mean = [100 * float(snapshot.matrix[row, : row + 1].mean()) for row in range(snapshot.learnt)]
            assert curves[1].series[0].y.tolist() == pytest.approx(mean)
    assert eras == ({1} if method in ("finetune", "packnet") else {1, 2, 3, 4, 5})
    kinds = {candidate.kind for candidate in network.candidates}
    assert kinds == {"firefly": {"new", "unlock"}, "grown": {"new"}}.get(method, set())


@pytest.mark.parametrize("family", ["mlp", "vgg"])
def test_the_network_of_the_task_at_hand_comes_along_as_a_file(family, tmp_path):
    study = replace(ContinualTasks.tiny(), family=family, share=1.0)
    snapshots = record(study.run())
    for snapshot in snapshots:
        network, edits = study.network_of(snapshot)
        assert edits == () and not network.training
        widths = [len(part) for part in snapshot.source]
        assert next(network.parameters()).shape[0] == widths[0]
        if snapshot.phase != "learnt" or snapshot.outcome:
            problem = study._stream().tasks[snapshot.task]
            right = float(snapshot.curve[-1, 3])
            measured = float(snapshot.curve[-1, 0]) == snapshot.step or snapshot.outcome
            assert not measured or problem.accuracy(network) == right
        again, log = loaded(tmp_path, network, edits)
        assert alike(again, network) and log == ()
    scene = study.view(snapshots[-1])[0]
    assert scene.layers[0].name in ("layer1", "conv1")
    books_kept(scene)
    assert lineage_kept(scene) == sum(int((part >= 0).sum()) for part in snapshots[-1].parents)
    assert len(scene.links) == len(scene.layers) - 1


def test_a_view_is_of_the_snapshot_alone():
    """Drawing it twice, or after others, gives the same scene."""
    study = replace(ContinualTasks.tiny(), share=1.0)
    snapshots = record(study.run())
    first = [study.view(snapshot)[0] for snapshot in snapshots]
    for snapshot, scene in zip(reversed(snapshots), reversed(first), strict=True):
        again = replace(study).view(snapshot)[0]
        assert all(np.array_equal(a.ids, b.ids) for a, b in zip(scene.layers, again.layers, strict=True))
        assert np.array_equal(scene.reads, again.reads) and repr(scene.candidates) == repr(again.candidates)


def test_tasks_are_compared_with_separate_networks():
    study = ContinualTasks()
    assert study.baseline() == replace(study, method="separate")
    assert replace(study, method="separate").baseline() is None
    said = study.forecast()
    assert said.startswith("5 tasks (0 and 1; 2 and 3; 4 and 5; 6 and 7; 8 and 9), at most ") and " steps, on " in said
    most = int(said.split("at most ")[1].split(" steps")[0].replace(",", ""))
    tiny = ContinualTasks.tiny()
    assert most == 5 * (5 * 150 + 2 * 4 + 1) and next(tiny.run()).total == 2 * (2 * 2 + 2 + 1)
    assert tiny.tasks == 2 and last(tiny.run()).outcome
