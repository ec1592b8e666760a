"""The study of conformers: what its pictures show, what it says about text that it cannot take, and what it leaves."""

import os
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
import torch

from studio.core.controls import controls, from_query, to_query
from studio.core.runs import last, record
from studio.core.snapshots import MAX_BYTES, nbytes
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.methods.conformer_search import Shapes
from studio.problems import chemist as chemists
from studio.scenes import Curves, Members, Molecules
from studio.studies.conformers import EXAMPLES, Conformers
from studio.studies.study import snapshot_type

GLYCOL = "COCCO"
BORONIC = "OB(O)CC"


@cache
def recorded(**changes):
    return record(replace(Conformers.tiny(), **changes).run())


def refused(**changes):
    """Return the sentence with which a run ends before its first snapshot."""
    with pytest.raises(ValueError) as caught:
        next(replace(Conformers.tiny(), **changes).run())
    return str(caught.value)


def test_the_first_picture_is_a_molecule_and_curves():
    study, first = Conformers.tiny(), recorded()[0]
    molecules, energy = study.view(first)
    assert isinstance(molecules, Molecules) and isinstance(energy, Curves)
    assert molecules.symbols.count("C") == 3 and molecules.symbols.count("O") == 2
    assert molecules.positions.shape == (len(first.positions), 13, 3) and len(molecules.captions) == len(
        first.positions
    )
    assert molecules.groups.tolist() == [-1] * len(first.positions), "shapes are not known before the end"


def test_the_last_picture_has_a_trade_off():
    assert [type(scene) for scene in Conformers.tiny().view(recorded()[-1])] == [Molecules, Members, Curves, Curves]
    end = recorded(method="plain", start="all")[-1]
    molecules, members, _ = Conformers.tiny().view(end)
    assert isinstance(molecules, Molecules) and isinstance(members, Members)
    assert molecules.energies[0] == 0 and (np.diff(molecules.energies) >= 0).all()
    assert molecules.lowest == pytest.approx(end.energies.min().item()) and molecules.field == "MMFF94s"
    assert np.array_equal(members.losses, molecules.energies) and members.captions != molecules.captions
    unlike = end.distances.numpy() + np.diag(np.full(4, np.inf))
    assert np.allclose(members.distances, unlike.min(axis=1))
    assert molecules.groups[0] == 0 < molecules.groups.max() and set(molecules.groups) == set(
        range(molecules.groups.max() + 1)
    )
    shapes = molecules.groups.max() + 1
    assert f"4 conformers, {shapes} {'shape' if shapes == 1 else 'different shapes'}" in end.outcome
    for index, caption in enumerate(molecules.captions):
        assert caption.startswith(f"Conformer {index + 1}: ") and caption.endswith(
            f"shape {molecules.groups[index] + 1}"
        )


def test_every_snapshot_can_be_seen():
    for snapshot in recorded():
        for scene in Conformers.tiny().view(snapshot):
            arrays = [value for value in vars(scene).values() if isinstance(value, np.ndarray)]
            assert all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")


def test_members_are_superposed_on_the_lowest():
    """Moved and turned, not bent: no distance changes, and all stand about one centre."""
    end = recorded(method="plain", start="all")[-1]
    molecules, heavy = Conformers.tiny().view(end)[0], end.skeleton.heavy.numpy()
    assert np.abs(molecules.positions[:, heavy].mean(axis=1)).max() < 1e-9
    inside, before = (
        np.linalg.norm(at[:, :, None] - at[:, None], axis=-1) for at in (molecules.positions, end.positions.numpy())
    )
    assert np.allclose(inside, before, atol=1e-9)
    rmsd = np.sqrt(((molecules.positions - molecules.positions[0])[:, heavy] ** 2).sum(axis=2).mean(axis=1))
    assert (rmsd >= end.distances.numpy()[0] - 1e-4).all() and rmsd.max() > 0.3
    assert molecules.path.shape[1:] == molecules.positions.shape and len(molecules.path) > 2


def test_the_tiny_study_is_a_whole_one():
    snapshots = recorded()
    assert snapshot_type(Conformers) is Shapes and snapshots[-1].outcome and snapshots[-1].phase == "done"
    assert all(nbytes(snapshot) <= MAX_BYTES for snapshot in snapshots)
    for snapshot in snapshots:
        assert snapshot_bytes(snapshot_from(snapshot_bytes(snapshot), Shapes)) == snapshot_bytes(snapshot)


def test_the_seed_decides():
    again, other = (last(replace(Conformers.tiny(), seed=seed).run()) for seed in (7, 8))
    assert snapshot_bytes(again) == snapshot_bytes(recorded()[-1]) != snapshot_bytes(other)


def test_a_run_goes_on_from_a_snapshot():
    middle = next(s for s in recorded() if s.phase == "spreading")
    assert snapshot_bytes(last(Conformers.tiny().run(middle))) == snapshot_bytes(recorded()[-1])


def test_the_baseline_embeds_each_and_only_minimises():
    study = Conformers.tiny()
    plain = study.baseline()
    assert plain == replace(study, method="plain", start="all") and plain.baseline() is None
    collapsed = replace(study, start="one").baseline()
    assert collapsed.start == "one" and collapsed.method == "plain"
    end = last(plain.run())
    assert len(end.positions) == 4 and end.spread is None


def test_its_state_is_a_link():
    study = replace(Conformers(), molecule="C[C@H](N)C(=O)O a&b=c", method="linear", width=12.5)
    assert from_query(Conformers, to_query(study)) == study


def test_the_forecast_names_its_size():
    assert "37 conformers" in replace(Conformers(), conformers=37).forecast()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conformers", 0), ("conformers", 257), ("method", "best"), ("start", "none"), ("steps", 0), ("width", -1.0),
        ("field", "AMBER"), ("alike", 0.0), ("energy", "coulomb"), ("kappa", 1.0), ("weight", 0.0), ("rounds", 0),
        ("tolerance", 0.0), ("heavy", 301), ("seconds", 0.0), ("device", "tpu"), ("molecule", "C" * 200_001),
        ("width", float("nan")),
    ],
)  # fmt: skip
def test_bounds_are_kept_by_name(name, value):
    assert name in {field.name for field in fields(Conformers)} and name in {one.name for one in controls(Conformers)}
    with pytest.raises(ValueError, match=name):
        replace(Conformers(), **{name: value})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "give a SMILES"), ("CC(", "not a SMILES"), ("hello world", "not a SMILES"), ("C1CC", "never closed"),
        ("[H][H]", "at least one other atom"), ("C*C", "stands for any atom"), ("[CH3]", "radical"),
        ("C" * 151, "at most 150 are read"),
    ],
)  # fmt: skip
def test_text_that_is_no_molecule_is_a_sentence(text, said):
    found = refused(molecule=text)
    assert said in found and "\n" not in found and len(found) < 400


def test_an_element_that_mmff_does_not_know_is_a_sentence():
    assert "choose UFF as the force field" in refused(molecule=BORONIC)
    assert "choose UFF as the force field" in refused(molecule=BORONIC, field="MMFF94")


def test_too_large_a_molecule_is_a_sentence():
    assert "at most 5 are read: give a smaller one" in refused(molecule="CCCCCC", heavy=5)


def test_the_other_force_field_runs_too():
    """UFF has no slopes here: RDKit minimises, nothing spreads, and the pictures are the same."""
    snapshots = recorded(molecule=BORONIC, field="UFF", rounds=200)
    assert {snapshot.phase for snapshot in snapshots} == {"relaxing", "done"}
    molecules, members, _ = Conformers.tiny().view(snapshots[-1])
    assert molecules.field == "UFF" and len(molecules.captions) == 4 and isinstance(members, Members)
    assert snapshots[-1].at_rest.all() and (snapshots[0].energies.min() >= snapshots[-1].energies.min())


@pytest.mark.parametrize("molecule", ["C", "O", "[Na+]", "CC", "N#N", "c1ccccc1", "C=C"])
def test_molecules_that_do_not_turn_run_to_their_end(molecule):
    end = recorded(molecule=molecule, conformers=2)[-1]
    scenes = Conformers.tiny().view(end)
    assert isinstance(scenes[0], Molecules) and isinstance(scenes[1], Members)
    assert end.outcome.startswith("2 conformers, 1 shape within 0.0 kcal/mol") and not scenes[0].groups.any()


def test_one_conformer_has_no_nearest():
    end = recorded(conformers=1)[-1]
    molecules, members, *_ = Conformers.tiny().view(end)
    assert len(molecules.captions) == 1 and "nearest" not in members.captions[0] and not members.distances.any()
    assert end.outcome.startswith("1 conformer, 1 shape")


def test_a_slope_so_large_counts_as_rest():
    """Members may all be at rest when they begin to settle: nothing is left to do, and the run ends."""
    end = recorded(conformers=1, start="all", steps=1, tolerance=1.0)[-1]
    assert end.phase == "done" and end.at_rest.all()


def test_titles_and_captions_are_plain_words():
    """What a stranger wrote is a title and nothing else; whoever draws it has to escape it, and gets it as it is."""
    title = "<img src=x onerror=alert(1)> & {{title}} %s"
    snapshot = next(replace(Conformers.tiny(), molecule=f"{GLYCOL} {title}").run())
    molecules, *_ = Conformers.tiny().view(snapshot)
    assert molecules.title == title and molecules.smiles == GLYCOL
    assert not any("<" in caption or "{" in caption for caption in molecules.captions)


def test_notes_say_what_was_left_out():
    snapshot = next(replace(Conformers.tiny(), molecule="[13CH3]OCCO.Cl").run())
    assert any("isotope" in note for note in snapshot.skeleton.notes)
    assert any("left out" in note and "Cl" in note for note in snapshot.skeleton.notes)


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_are_molecules_that_the_default_field_knows(text):
    first = next(replace(Conformers(), molecule=text, conformers=1).run())
    assert len(first.skeleton.heavy) >= 8 and first.energies.isfinite().all()


def test_closing_a_run_ends_its_child(monkeypatch):
    """The process for RDKit lives as long as the run, whether it ends, is closed or fails."""
    started, start = [], chemists._start
    monkeypatch.setattr(chemists, "_start", lambda command: (started.append(start(command)), started[-1])[1])
    run = Conformers.tiny().run()
    assert not started, "a run that nobody asks for anything starts nothing"
    next(run)
    assert len(started) == 1 and started[0].poll() is None
    run.close()
    assert started[0].poll() is not None and not os.path.exists(f"/proc/{started[0].pid}/exe")
    refused(molecule="CC(")
    assert len(started) == 2 and started[1].poll() is not None


def test_devices_are_where_the_tensors_are():
    assert recorded()[-1].positions.device == torch.device("cpu") and recorded()[-1].positions.dtype == torch.float64
