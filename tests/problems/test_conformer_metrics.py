"""Distances agree with RDKit's whatever the symmetry; coverage, matching and groups agree with numbers made by hand."""

import math
from dataclasses import astuple
from functools import cache

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolAlign

from studio.problems.conformer_metrics import (
    CONFGF_DRUGS,
    GEOMOL_DRUGS,
    Scores,
    coverage,
    cross_rmsd,
    distinct,
    groups,
    matching,
    scores,
    self_rmsd,
)

MOLECULES = {
    "neopentane": "CC(C)(C)C",
    "benzene": "c1ccccc1",
    "tert-butyl benzoate": "CC(C)(C)OC(=O)c1ccccc1",
    "para-xylene": "Cc1ccc(C)cc1",
    "para-cresol": "Cc1ccc(O)cc1",
    "acetate": "CC([O-])=O",
    "succinate": "[O-]C(=O)CCC(=O)[O-]",
    "sulfonamide": "NS(=O)(=O)c1ccc(F)cc1",
    "nitro": "O=[N+]([O-])c1ccc(CC)cc1",
    "phosphate": "COP(=O)([O-])[O-]",
    "guanidinium": "CCNC(N)=[NH2+]",
    "amide": "CCC(N)=O",
    "trifluoride": "OC(C(F)(F)F)C(F)(F)F",
    "biphenyl": "c1ccc(-c2ccccc2)cc1",
    "alanine": "C[C@H](N)C(=O)O",
    "salt": "CC[NH3+].CC([O-])=O",
    "diacetylene": "C#CC#C",
    "methane": "C",
    "acetonitrile": "CC#N",
}
MATRIX = np.array([[0.2, 1.25, 2.0, 3.0], [1.5, 1.25, 0.75, 1.0], [4.0, 2.5, 3.5, 2.0]])


@cache
def molecule(name):
    """A molecule with hydrogens, and six shaken and turned conformers of it."""
    mol = Chem.AddHs(Chem.MolFromSmiles(MOLECULES[name]))
    assert len(rdDistGeom.EmbedMultipleConfs(mol, 6, randomSeed=1)) == 6
    noise = np.random.default_rng(0)
    for conformer in mol.GetConformers():
        turn = np.linalg.qr(noise.normal(size=(3, 3)))[0]
        shaken = conformer.GetPositions() + noise.normal(0, 0.3, (mol.GetNumAtoms(), 3))
        conformer.SetPositions(shaken @ (turn * np.sign(np.linalg.det(turn))) + noise.normal(0, 5, 3))
    return mol, np.array([conformer.GetPositions() for conformer in mol.GetConformers()])


@pytest.mark.parametrize("name", MOLECULES)
def test_distances_are_those_of_rdkit(name):
    mol, positions = molecule(name)
    bare = Chem.RemoveHs(mol)
    expected = [[rdMolAlign.GetBestRMS(Chem.Mol(bare), bare, prbId=j, refId=i) for j in range(2, 6)] for i in range(2)]
    before = positions.copy()
    found = cross_rmsd(mol, positions[:2], positions[2:])
    assert np.abs(found - expected).max() < 1e-6
    assert np.array_equal(positions, before)
    own = self_rmsd(mol, positions)
    assert np.array_equal(own, own.T) and not own.diagonal().any()
    assert np.abs(own[:2, 2:] - found).max() < 1e-9


def test_a_mirror_image_is_not_the_same():
    mol, positions = molecule("alanine")
    mirrored = positions[:1] * [1.0, 1.0, -1.0]
    assert cross_rmsd(mol, positions[:1], mirrored)[0, 0] > 0.1


@pytest.mark.parametrize("name", ["neopentane", "benzene", "nitro", "guanidinium"])
def test_labels_of_like_atoms_do_not_count(name):
    mol, positions = molecule(name)
    likes = {
        "neopentane": [0, 2, 3, 4],
        "benzene": [0, 1, 2, 3, 4, 5],
        "nitro": [0, 2],
        "guanidinium": [4, 5],
    }[name]
    order = np.arange(mol.GetNumAtoms())
    order[likes] = np.roll(likes, 1)
    moved = positions[:, order]
    assert cross_rmsd(mol, positions, moved).diagonal().max() < 1e-3
    assert cross_rmsd(mol, positions, moved, max_matches=1).diagonal().min() > 0.1


def test_hydrogens_do_not_count():
    mol, positions = molecule("tert-butyl benzoate")
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    bare = self_rmsd(Chem.RemoveHs(mol), positions[:, heavy])
    assert np.allclose(self_rmsd(mol, positions), bare, atol=1e-12)
    assert (bare[~np.eye(6, dtype=bool)] > 0.1).all()
    loose = positions.copy()
    loose[:, max(heavy) + 1 :] += 7.0
    assert np.allclose(self_rmsd(mol, loose), bare, atol=1e-12)


def test_many_conformers_are_compared_piece_by_piece():
    mol, positions = molecule("trifluoride")
    many = np.concatenate([positions + 0.01 * k * positions**2 for k in range(25)])
    found = self_rmsd(mol, many)
    some = [0, 40, 99, 149]
    assert np.allclose(found[np.ix_(some, some)], self_rmsd(mol, many[some]), atol=1e-9)
    assert np.allclose(found[3:5], cross_rmsd(mol, many[3:5], many), atol=1e-6)


def test_nothing_is_a_set_too():
    mol, positions = molecule("benzene")
    none = positions[:0]
    assert cross_rmsd(mol, positions, none).shape == (6, 0) and cross_rmsd(mol, none, positions).shape == (0, 6)
    assert self_rmsd(mol, none).shape == (0, 0)
    failed = scores(np.zeros((3, 0)), 1.0, False)
    assert (failed.cov_r, failed.cov_p) == (0.0, 0.0) and math.isnan(failed.mat_r) and math.isnan(failed.mat_p)
    assert distinct(np.zeros((0, 0)), np.zeros(0), 0.5, 6.0).shape == (0,)
    assert groups(np.zeros((0, 0)), np.zeros(0), 0.5).shape == (0,)
    for measure in (lambda r: coverage(r, 1.0, True), matching):
        with pytest.raises(ValueError, match="no references"):
            measure(np.zeros((0, 4)))


def test_scores_of_a_matrix_made_by_hand():
    # Least of the rows: 0.2, 0.75, 2.0; least of the columns: 0.2, 1.25, 0.75, 1.0.
    assert coverage(MATRIX, CONFGF_DRUGS.threshold, CONFGF_DRUGS.strict) == (2 / 3, 1.0)
    assert coverage(MATRIX, 1.25, strict=True) == (2 / 3, 3 / 4)
    assert coverage(MATRIX, GEOMOL_DRUGS.threshold, GEOMOL_DRUGS.strict) == (1 / 3, 1 / 4)
    assert coverage(MATRIX, 0.75, strict=False) == (2 / 3, 2 / 4)
    assert matching(MATRIX) == (pytest.approx(2.95 / 3, abs=1e-15), pytest.approx(0.8, abs=1e-15))
    assert astuple(scores(MATRIX, 1.25, False)) == pytest.approx((2 / 3, 2.95 / 3, 1.0, 0.8), abs=1e-15)


def test_a_set_covers_itself():
    own = self_rmsd(*molecule("biphenyl"))
    assert scores(own, 1e-9, True) == Scores(1.0, 0.0, 1.0, 0.0)


def test_distinct_and_groups_by_hand():
    # On a line at 0, 0.3, 0.6, 2.0, 5.0; the second has the lowest energy, the last lies above the window.
    places = np.array([0.0, 0.3, 0.6, 2.0, 5.0])
    apart = np.abs(places[:, None] - places)
    energies = np.array([1.0, 0.0, 2.0, 3.0, 9.0])
    assert distinct(apart, energies, 0.5, 6.0).tolist() == [1, 3]
    assert distinct(apart, energies, 0.5, 9.0).tolist() == [1, 3, 4], "the window's edge is inside"
    assert distinct(apart, energies, 0.3, 6.0).tolist() == [1, 0, 2, 3], "the threshold itself is apart"
    assert groups(apart, energies, 0.5).tolist() == [0, 0, 0, 1, 2]
    assert groups(apart, np.array([0.0, 0.5, 0.6, 1.0, np.inf]), 0.5).tolist() == [0, 0, 1, 2, 3], (
        "the first one counts"
    )
    twins = np.zeros((3, 3))
    assert groups(twins, np.zeros(3), 0.5).tolist() == [0, 0, 0] and distinct(twins, np.zeros(3), 0.5, 1).tolist() == [
        0
    ]
    with pytest.raises(ValueError, match="not a number"):
        distinct(apart, np.full(5, np.nan), 0.5, 6.0)


def test_what_does_not_fit_is_refused_in_a_sentence():
    mol, positions = molecule("methane")
    with pytest.raises(ValueError, match="4 atoms and the molecule 5"):
        cross_rmsd(mol, positions[:, :4], positions[:, :4])
    with pytest.raises(ValueError, match="max_matches must be at least 1"):
        cross_rmsd(mol, positions, positions, max_matches=0)
    with pytest.raises(ValueError, match="not finite"):
        self_rmsd(mol, np.full_like(positions, np.nan))
    hydrogen = Chem.AddHs(Chem.MolFromSmiles("[H][H]"))
    with pytest.raises(ValueError, match="has none"):
        self_rmsd(hydrogen, np.zeros((1, 2, 3)))
