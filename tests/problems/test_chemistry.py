"""Molecules from any text: what is read is right to the last hydrogen, and the rest is refused with a sentence."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems.odd_molecules import BLOCK, DRUGS, READ, REFUSED

from studio.problems.chemistry import (
    Molecule,
    embed,
    energies,
    minimise,
    rdkit_mol,
    read_many,
    read_molecule,
    rmsd_matrix,
    sdf_records,
    superposed,
)

ASPIRIN = read_molecule("CC(=O)Oc1ccccc1C(=O)O")
LETTERS = st.sampled_from([*"CNOSFPIBcnos()[]=#:.-+@/\\%0123456789H*$~ ", "Cl", "[nH]", "[O-]", "\0", "é", "\n"])


def same(one, other):
    """Whether two molecules are equal in every field, arrays to their types."""
    for name in Molecule.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        equal = np.array_equal(a, b) and a.dtype == b.dtype if isinstance(a, np.ndarray) else a == b
        if not equal:
            return False
    return True


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=lambda value: ascii(value[:24]))
def test_what_is_no_molecule_is_refused_with_a_sentence(text, words, capfd):
    with pytest.raises(ValueError) as caught:
        read_molecule(text)
    said = str(caught.value)
    assert words in said
    assert len(said) < 300 and said.isprintable()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("text", "smiles", "note"), READ, ids=lambda value: ascii(value and value[:24]))
def test_what_is_odd_is_read_and_what_was_changed_is_said(text, smiles, note, capfd):
    found = read_molecule(text)
    assert smiles is None or found.smiles == smiles
    assert (note in " ".join(found.notes)) if note else not found.notes
    again = read_molecule(found.smiles)
    assert again.smiles == found.smiles and again.binary == found.binary
    assert capfd.readouterr() == ("", "")


def test_there_are_enough_odd_texts():
    assert len(REFUSED) >= 80 and len(READ) >= 40


@pytest.mark.parametrize("limit", [0, -1, 301])
def test_the_limit_of_atoms_has_limits(limit):
    with pytest.raises(ValueError, match="max_heavy must be between 1 and 300"):
        read_molecule("C", limit)


def test_the_limit_of_atoms_is_kept():
    assert len(read_molecule("CCO", 3).heavy) == 3
    with pytest.raises(ValueError, match="3 atoms other than hydrogen, and at most 2"):
        read_molecule("CCO", 2)


def test_hydrogens_charges_and_orders():
    found = read_molecule("[O-]C(=O)c1ccccc1")
    assert found.symbols.count("H") == 5 and found.symbols.count("C") == 7
    assert sorted(found.charges[found.charges != 0]) == [-1] and found.symbols[int(found.charges.argmin())] == "O"
    assert list(found.heavy) == list(range(9))
    assert (found.orders == 1.5).sum() == 6 and (found.orders == 2).sum() == 1 and (found.orders == 1).sum() == 7
    assert found.bonds.shape == (14, 2) and found.fields == ("MMFF94s", "MMFF94", "UFF")
    assert (read_molecule("N#N").orders == [3.0]).all()
    assert read_molecule("OB(O)c1ccccc1").fields == ("UFF",)


def test_hydrogens_that_a_smiles_names_come_last():
    found = read_molecule("[H]/N=C/C")
    assert list(found.heavy) == [0, 1, 2] and found.symbols[3:] == ("H",) * 5


@pytest.mark.parametrize(
    ("smiles", "torsions"),
    [("C", 0), ("CC", 0), ("CCCC", 1), ("CCCCCC", 3), ("CC(=O)NC", 0), ("CCNC(=O)CC", 2), ("CC#CC", 0), ("CCC#CCC", 0),
     ("C1CCCCC1", 0), ("c1ccccc1-c1ccccc1", 1), ("CC(C)(C)CC", 0), ("CCC=CCC", 2), ("CC(=O)Oc1ccccc1C(=O)O", 2)],
)  # fmt: skip
def test_torsions_are_the_rotatable_bonds(smiles, torsions):
    found = read_molecule(smiles)
    assert found.torsions.shape == (torsions, 4)
    joined = {frozenset(pair) for pair in found.bonds.tolist()}
    for row in found.torsions.tolist():
        assert len(set(row)) == 4 and set(row) <= set(found.heavy.tolist())
        assert all(frozenset(pair) in joined for pair in pairwise(row))


def test_torsions_end_at_the_heaviest_neighbours():
    found = read_molecule("CC(Cl)C(Br)C")
    ends = {found.symbols[found.torsions[0, 0]], found.symbols[found.torsions[0, 3]]}
    assert ends == {"Cl", "Br"}


@pytest.mark.parametrize(
    ("smiles", "rings"),
    [("C1CCCCC1", 6), ("c1ccccc1", 0), ("C1CC1", 0), ("C1CCC1", 0), ("C1CCCC1", 5), ("C1=CCCCC1", 5),
     ("C1CC2CCC1CC2", 9), ("C1Cc2ccccc2C1", 4), ("CCCC", 0)],
)  # fmt: skip
def test_rings_are_the_single_bonds_of_rings_of_five_and_more(smiles, rings):
    found = read_molecule(smiles)
    assert found.rings.shape == (rings, 4)
    assert len({frozenset(row[1:3]) for row in found.rings.tolist()}) == rings


def test_titles_are_plain():
    assert read_molecule("CCO <b>ethanol</b>\t\u202e x" + "y" * 200).title.startswith("<b>ethanol</b> xy")
    assert len(read_molecule("CCO " + "y" * 200).title) == 80
    assert read_molecule(BLOCK.replace("lactic acid", "\x1b[31mred\x07")).title == "[31mred <b>"


def test_a_molecule_does_not_depend_on_how_it_was_written():
    texts = ("CC(=O)Oc1ccccc1C(=O)O", "OC(=O)C1=CC=CC=C1OC(C)=O", "[CH3]C(=O)O-c1ccccc1C(O)=O")
    assert all(same(read_molecule(text), ASPIRIN) for text in texts)


def test_stereocentres_left_open_are_chosen_once():
    found = read_molecule("CC(O)C(F)Cl")
    assert found.smiles.count("@") >= 2 and not read_molecule(found.smiles).notes
    assert same(read_molecule("CC(O)C(F)Cl"), found)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(DRUGS), st.lists(st.tuples(st.integers(0, 60), LETTERS, st.integers(0, 2)), max_size=4))
def test_mutated_smiles_are_read_or_refused(text, changes):
    for place, letter, removed in changes:
        text = text[:place] + letter + text[place + removed :]
    try:
        found = read_molecule(text)
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) > 10
    else:
        assert len(found.heavy) >= 1 and found.fields


def test_lines_and_records_are_told_apart():
    lines = ["# a comment", "", "CCO ethanol", "  C\tmethane <x> ", "nonsense"]
    assert list(read_many(lines)) == [(3, "ethanol", "CCO"), (4, "methane <x>", "C"), (5, "", "nonsense")]
    records = list(sdf_records(BLOCK + "> <a>\n1\n\n$$$$\n" + BLOCK.replace("lactic", "other") + "$$$$\n"))
    assert [(number, title) for number, title, _ in records] == [(1, "lactic acid <b>"), (2, "other acid <b>")]
    assert all(read_molecule(text).smiles == "C[C@@H](O)C(=O)O" for *_, text in records)


def test_records_of_a_file_are_bounded(tmp_path):
    path = tmp_path / "many.sdf"
    path.write_bytes(BLOCK.encode() + b"\xff\n$$$$\n" + b"x" * 900_000 + b"\n$$$$\n" + BLOCK.encode())
    records = list(sdf_records(path))
    assert [number for number, *_ in records] == [1, 2, 3]
    assert max(len(text) for *_, text in records) <= 200_001
    assert read_molecule(records[2][2]).title == "lactic acid <b>"


def test_conformers_depend_on_the_seed_and_their_number_alone():
    many, few = embed(ASPIRIN, 12, seed=3), embed(ASPIRIN, 5, seed=3)
    assert many.shape == (12, 21, 3) and many.dtype == np.float64
    assert many[:5].tobytes() == few.tobytes() and embed(ASPIRIN, 12, seed=3).tobytes() == many.tobytes()
    assert many[:1].tobytes() == embed(ASPIRIN, 1, seed=3).tobytes()
    assert not np.array_equal(embed(ASPIRIN, 5, seed=4), few)
    assert rdkit_mol(ASPIRIN).GetNumConformers() == 0


def test_what_starts_from_distances_in_vain_starts_from_random_places():
    chain = read_molecule("C" * 80)
    assert embed(chain, 1, seconds=60).shape == (1, 242, 3)


@pytest.mark.parametrize("smiles", ["C1#CC1", "C1=C2CC12"])
def test_what_cannot_be_embedded_gets_a_sentence(smiles):
    with pytest.raises(ValueError, match="no conformer of this molecule at all, it is too strained"):
        embed(read_molecule(smiles), 3, seconds=20)


def test_an_embedding_that_runs_out_of_time_says_so():
    with pytest.raises(ValueError, match=r"no conformer of this molecule within 0.2 s: give a smaller"):
        embed(read_molecule("C1C[C@@H]2CC[C@@H]1C2"), 3, seconds=0.2)


@pytest.mark.parametrize("count", [0, 1_001])
def test_the_number_of_conformers_has_limits(count):
    with pytest.raises(ValueError, match="between 1 and 1,000"):
        embed(ASPIRIN, count)


def test_minimising_ends_in_a_minimum_of_the_field_that_was_named():
    start = embed(ASPIRIN, 4)
    kept = start.copy()
    for field in ASPIRIN.fields:
        relaxed, reached, rested = minimise(ASPIRIN, start, field)
        assert rested.all() and relaxed.shape == start.shape
        assert np.abs(energies(ASPIRIN, relaxed, field) - reached).max() < 1e-6
        assert (reached < energies(ASPIRIN, start, field)).all()
    assert np.array_equal(start, kept)
    assert not minimise(ASPIRIN, start, "UFF", steps=1)[2].any()


def test_positions_and_fields_that_do_not_fit_are_refused():
    start = embed(ASPIRIN, 2)
    with pytest.raises(ValueError, match="shape"):
        minimise(ASPIRIN, start[:, :5], "UFF")
    with pytest.raises(ValueError, match="at least one conformer"):
        energies(ASPIRIN, start[:0], "UFF")
    with pytest.raises(ValueError, match="finite"):
        energies(ASPIRIN, np.where(start > 1, np.nan, start), "UFF")
    boron = read_molecule("OB(O)C")
    with pytest.raises(ValueError, match="MMFF94s has no parameters for this molecule: choose UFF"):
        energies(boron, embed(boron, 1), "MMFF94s")
    with pytest.raises(ValueError, match="steps"):
        minimise(ASPIRIN, start, "UFF", steps=-1)


def moved(positions, seed=0):
    """The same shape, turned and moved."""
    generator = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    return positions @ (turn * np.sign(np.linalg.det(turn))) + generator.normal(size=3)


@pytest.mark.parametrize("smiles", ["CC(C)(C)C", "c1ccccc1"])
def test_symmetric_molecules_are_equal_however_their_atoms_are_counted(smiles):
    found = read_molecule(smiles)
    one = embed(found, 1)[0]
    mol = rdkit_mol(found)
    matches = mol.GetSubstructMatches(mol, uniquify=False, maxMatches=60)
    copies = np.stack([moved(one[list(match)], seed) for seed, match in enumerate(matches[:12] + matches[-12:])])
    kept = copies.copy()
    assert rmsd_matrix(found, copies).max() < 1e-3
    assert np.array_equal(copies, kept)


def test_hydrogens_do_not_count_and_heavy_atoms_do():
    positions = np.repeat(embed(ASPIRIN, 1), 3, axis=0)
    light = [index for index in range(21) if index not in set(ASPIRIN.heavy.tolist())]
    positions[1, light] += np.random.default_rng(0).normal(size=(len(light), 3))
    positions[2, ASPIRIN.heavy[0]] += 1.0
    found = rmsd_matrix(ASPIRIN, positions)
    assert found[0, 1] < 1e-6 and found[0, 2] > 0.1
    assert np.array_equal(found, found.T) and not np.diag(found).any()


@pytest.mark.parametrize("smiles", ["C", "CC", "O"])
def test_the_smallest_molecules_have_distances(smiles):
    found = read_molecule(smiles)
    positions = embed(found, 3)
    assert rmsd_matrix(found, positions).shape == (3, 3) and rmsd_matrix(found, positions[:1]).shape == (1, 1)
    assert np.isfinite(superposed(found, positions)).all()


def test_superposed_conformers_lie_on_the_first():
    one = embed(ASPIRIN, 1)[0]
    found = superposed(ASPIRIN, np.stack([one, moved(one, 1), moved(one, 2)]))
    assert np.abs(found - found[0]).max() < 1e-9
    assert np.abs(found[0][ASPIRIN.heavy].mean(axis=0)).max() < 1e-9
    mirrored = superposed(ASPIRIN, np.stack([one, -one]))
    assert np.abs(mirrored[1] - mirrored[0]).max() > 0.1, "a mirror image is no rotation"
    turned = np.linalg.norm(found[1][:, None] - found[1][None], axis=-1)
    assert np.allclose(turned, np.linalg.norm(one[:, None] - one[None], axis=-1))


def test_superposed_agrees_with_the_least_rmsd():
    found = read_molecule("CCOC(F)Cl")
    positions = embed(found, 6)
    placed = superposed(found, positions)[:, found.heavy]
    ours = np.sqrt(((placed - placed[0]) ** 2).sum(axis=-1).mean(axis=-1))
    assert np.allclose(ours, rmsd_matrix(found, positions)[0], atol=1e-4)


def test_reading_needs_neither_torch_nor_rdkit_at_import():
    code = "import sys, studio.problems.chemist as c; print({'torch', 'rdkit'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
