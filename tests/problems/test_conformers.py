"""Bonds that turn: only their own torsion changes, torques are the energy's slopes, and symmetry hides no shape."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch

from studio.core.molecules import MolecularProblem
from studio.problems import chemistry
from studio.problems.chemist import Chemist
from studio.problems.conformers import Turns
from studio.problems.mmff import MMFF
from studio.problems.mmff_terms import mmff_terms
from studio.problems.molecule_shapes import MoleculeShapes, molecule_shapes

IBUPROFEN = "CC(C)Cc1ccc(C(C)C(=O)O)cc1"
FLEXIBLE = (IBUPROFEN, "COCCOCCOC", "CCOC(=O)c1ccc(-c2ccccc2)cc1", "CC(N)C(=O)NCC(=O)O")


class Elsewhere(torch.Tensor):
    """A tensor that says it is on no processor, so that the tensor operations do the work."""

    device = torch.device("meta")


@cache
def shapes(smiles, field="MMFF94s"):
    """Return a molecule as a problem; its chemist is only asked where a test says so, and then started."""
    return MoleculeShapes(chemistry.read_molecule(smiles), field, 5, Chemist(), 30.0, "cpu")


@cache
def embedded(smiles, n=3):
    return torch.from_numpy(chemistry.embed(shapes(smiles).molecule, n, seed=2))


@cache
def turning(smiles, n=3):
    """Return the energy over turns of n geometries of a molecule, without another process."""
    field = MMFF((mmff_terms(chemistry.rdkit_mol(shapes(smiles).molecule)),))
    return Turns(field, shapes(smiles).rotors, embedded(smiles, n))


def some_turns(smiles, n=3, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(n, shapes(smiles).turning, generator=generator, dtype=torch.float64)


def off(angles):
    """Return how far angles are from whole turns."""
    return (angles + torch.pi).remainder(2 * torch.pi) - torch.pi


def about(smiles, *torsion):
    """Return a molecule that turns about one bond only, one which the strict definition of a rotor leaves out."""
    molecule = replace(shapes(smiles).molecule, torsions=np.array([torsion], dtype=np.int64))
    return MoleculeShapes(molecule, "MMFF94s", 5, Chemist(), 30.0, "cpu")


@pytest.mark.parametrize("smiles", FLEXIBLE)
def test_a_turn_changes_its_own_torsion_and_no_other(smiles):
    positions, found = embedded(smiles), shapes(smiles).rotors
    before = found.angles(positions)
    for index in range(len(found.atoms)):
        turn = torch.zeros(len(positions), len(found.atoms), dtype=torch.float64)
        turn[:, index] = torch.tensor([0.7, -2.0, 3.0], dtype=torch.float64)
        change = off(found.angles(found.turned(positions, turn)) - before - turn)
        assert change.abs().max() <= 1e-9, index
    every = some_turns(smiles)
    assert off(found.angles(found.turned(positions, every)) - before - every).abs().max() <= 1e-9


@pytest.mark.parametrize("smiles", FLEXIBLE)
def test_bonds_angles_and_hands_stay_as_they_are(smiles):
    """Lengths, distances over two bonds, and the volume spanned at every atom with its sign."""
    positions, problem = embedded(smiles), shapes(smiles)
    turned = problem.turned(positions, some_turns(smiles, seed=1))
    assert (turned - positions).norm(dim=2).max() > 1, "something moves"
    near = [[] for _ in problem.molecule.symbols]
    for a, b in problem.molecule.bonds.tolist():
        near[a].append(b)
        near[b].append(a)
    pairs = [tuple(bond) for bond in problem.molecule.bonds.tolist()]
    pairs += [pair for around in near for pair in combinations(around, 2)]
    i, j = torch.tensor(pairs).T
    lengths = [(at[:, i] - at[:, j]).norm(dim=2) for at in (positions, turned)]
    assert (lengths[0] - lengths[1]).abs().max() <= 1e-9
    centres = torch.tensor([(j, *around[:3]) for j, around in enumerate(near) if len(around) >= 3]).T
    volumes = [
        torch.linalg.det(torch.stack([at[:, centres[k]] - at[:, centres[0]] for k in (1, 2, 3)], dim=-1))
        for at in (positions, turned)
    ]
    assert (volumes[0] - volumes[1]).abs().max() <= 1e-8


@pytest.mark.parametrize("smiles", FLEXIBLE)
def test_both_ways_of_turning_agree(smiles):
    """The compiled pass and the tensor operations, which run where there is no compiled pass."""
    positions, turns, found = embedded(smiles), some_turns(smiles, seed=2), shapes(smiles).rotors
    compiled = found.turned(positions, turns)
    assert torch.equal(positions, embedded.__wrapped__(smiles)), "arguments are not modified"
    looped = found.turned(positions.as_subclass(Elsewhere), turns).as_subclass(torch.Tensor)
    assert (compiled - looped).abs().max() <= 1e-10
    assert found.turned(positions.float(), turns.float()).dtype == torch.float32


@pytest.mark.parametrize("smiles", FLEXIBLE)
def test_torques_are_slopes_in_the_turns(smiles):
    """Against finite differences, and against backpropagation through the turning itself."""
    problem, turns = turning(smiles, 2), some_turns(smiles, 2, seed=3, size=0.4)
    leaf = turns.clone().requires_grad_()
    assert torch.autograd.gradcheck(problem.loss, (leaf,), eps=1e-6, atol=1e-4, rtol=1e-6)
    (found,) = torch.autograd.grad(problem.loss(leaf).sum(), leaf)
    through = problem.rotors.turned(problem.geometry.as_subclass(Elsewhere), leaf).as_subclass(torch.Tensor)
    (expected,) = torch.autograd.grad(problem.field.energies_kcal_mol(through).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_each_member_turns_its_own_geometry():
    problem, turns = turning(IBUPROFEN, 3), some_turns(IBUPROFEN, 3, seed=4)
    positions = problem.rotors.turned(problem.geometry, turns)
    assert torch.equal(problem.loss(turns), problem.field.with_gradients(positions)[0][:, 0])
    assert not problem.start(3, torch.Generator()).any() and problem.start(3, torch.Generator()).shape == turns.shape
    leaf = turns.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(problem.loss(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slopes.sum().backward()


def test_the_smaller_side_turns():
    """Turning moves at most half of the atoms, the far end of its torsion and neither atom of its bond."""
    for smiles in FLEXIBLE:
        found = shapes(smiles).rotors
        assert (found.moved.sum(dim=1) <= found.moved.shape[1] / 2).all()
        for (first, start, end, last), moved in zip(found.atoms.tolist(), found.moved, strict=True):
            assert moved[last] and moved[end] and not moved[start] and not moved[first]


@pytest.mark.parametrize(
    ("smiles", "torsion", "expected"),
    [
        ("CC(C)(C)CO", (0, 1, 4, 5), 3),
        ("CC(C)(C)c1ccccc1", (0, 1, 4, 5), 6),
        ("OCCc1ccccc1", (1, 2, 3, 4), 2),
        ("OCCc1ccccc1F", (1, 2, 3, 4), 1),
        ("CCCC", (0, 1, 2, 3), 1),
        ("CC(C)CO", (0, 1, 3, 4), 1),
        # Like ends do not multiply: half a turn of two phenyls, a third of two tripods.
        ("c1ccc(-c2ccccc2)cc1", (2, 3, 4, 5), 2),
        ("CC(C)(C)C(C)(C)C", (0, 1, 4, 5), 3),
        # Half a turn of a pyramid is another conformer.
        ("CCN(C)C", (0, 1, 2, 3), 1),
        ("CCN1CCCCC1", (0, 1, 2, 3), 1),
        ("CCP(C)C", (0, 1, 2, 3), 1),
    ],
)
def test_orders_are_how_many_turns_give_the_same_molecule(smiles, torsion, expected):
    assert about(smiles, *torsion).rotors.orders.tolist() == [expected]


@pytest.mark.parametrize(
    ("smiles", "torsion"),
    [
        ("CC(C)(C)CO", (0, 1, 4, 5)), ("OCCc1ccccc1", (1, 2, 3, 4)), ("c1ccc(-c2ccccc2)cc1", (2, 3, 4, 5)),
        ("CCN1CCCCC1", (0, 1, 2, 3)), ("CCN(C)C", (0, 1, 2, 3)),
    ],
)  # fmt: skip
def test_features_know_symmetry_and_nothing_more(smiles, torsion):
    """A turn by one order gives the same features and the same energy; half that turn gives other features."""
    relaxed = chemistry.minimise(shapes(smiles).molecule, embedded(smiles).numpy(), "MMFF94s")[0]
    problem = Turns(turning(smiles).field, about(smiles, *torsion).rotors, torch.from_numpy(relaxed))
    whole = torch.full((3, 1), 2 * torch.pi / problem.rotors.orders.item(), dtype=torch.float64)
    assert (problem.features(whole) - problem.features(0 * whole)).abs().max() <= 1e-9
    assert (problem.features(whole / 2) - problem.features(0 * whole)).abs().max() > 0.1
    assert (problem.loss(whole) - problem.loss(0 * whole)).abs().max() <= 0.6, "to how symmetric the minimum is"


def test_features_are_cosines_and_sines():
    problem = turning("COCCOCCOC", 3)
    turns = some_turns("COCCOCCOC", 3)
    cosines, sines = problem.features(turns).chunk(2, dim=1)
    assert torch.allclose(cosines.square() + sines.square(), torch.ones_like(cosines))
    angles = problem.rotors.angles(problem.rotors.turned(problem.geometry, turns))
    assert (torch.atan2(sines, cosines) - angles).abs().max() <= 1e-9


def test_angles_are_rdkits():
    from rdkit.Chem import rdMolTransforms

    found, positions = shapes(IBUPROFEN).rotors, embedded(IBUPROFEN)
    mol = chemistry._with_conformers(shapes(IBUPROFEN).molecule, positions.numpy(), "MMFF94s")
    expected = [
        [rdMolTransforms.GetDihedralRad(mol.GetConformer(row), *atoms) for atoms in found.atoms.tolist()]
        for row in range(len(positions))
    ]
    assert off(found.angles(positions) - torch.tensor(expected, dtype=torch.float64)).abs().max() <= 1e-9


def test_a_bond_of_a_ring_cannot_turn():
    molecule = chemistry.read_molecule("C1CCCCC1")
    bent = replace(molecule, torsions=molecule.rings[:1])
    with pytest.raises(ValueError, match=r"the bond between atoms \d+ and \d+ is in a ring and cannot turn"):
        _ = MoleculeShapes(bent, "MMFF94s", 0, Chemist(), 30.0, "cpu").rotors


@pytest.mark.parametrize("smiles", ["C", "CC", "c1ccccc1", "[Na+]", "N#N"])
def test_what_does_not_turn_has_no_rotors(smiles):
    problem, positions = shapes(smiles), embedded(smiles, 2)
    assert problem.turning == 0 and torch.equal(problem.turned(positions, positions.new_zeros(2, 0)), positions)


def test_a_molecule_is_a_problem():
    """Everything that a method asks, through a chemist of its own."""
    with Chemist() as chemist:
        problem = molecule_shapes("COCCO glycol", "MMFF94s", 3, chemist, max_heavy=50, seconds=30.0, device="cpu")
        assert isinstance(problem, MolecularProblem) and problem.smooth and problem.turning == 2
        skeleton = problem.skeleton
        assert skeleton.title == "glycol" and skeleton.smiles == "COCCO" and skeleton.field == "MMFF94s"
        assert skeleton.numbers.tolist()[:5] == [6, 8, 6, 6, 8] and skeleton.heavy.tolist() == [0, 1, 2, 3, 4]
        first, rest, whole = problem.embedded(0, 2), problem.embedded(2, 2), problem.embedded(0, 4)
        assert torch.equal(torch.cat([first, rest]), whole), "a geometry does not depend on those before it"
        energies, slopes = problem.objective(whole.reshape(4, -1))
        assert torch.equal(energies, problem.energies(whole)) and slopes.shape == (4, whole[0].numel())
        assert problem.curvature(whole.reshape(4, -1)).shape == (4, whole[0].numel(), whole[0].numel())
        relaxed, reached, rested = problem.relaxed(whole, 100)
        assert rested.all() and (reached < energies).all() and (problem.energies(relaxed) - reached).abs().max() < 1e-9
        unlike = problem.unlike(relaxed)
        assert torch.equal(unlike, unlike.T) and not unlike.diagonal().any() and unlike.max() > 0.1


def test_uff_minimises_without_slopes():
    with Chemist() as chemist:
        problem = molecule_shapes("CB(O)OCC", "UFF", 3, chemist, max_heavy=50, seconds=30.0, device="cpu")
        assert not problem.smooth and problem.turning == 0
        positions = problem.embedded(0, 2)
        before = problem.energies(positions)
        relaxed, reached, _ = problem.relaxed(positions, 50)
        assert (reached < before).all() and not torch.equal(relaxed, positions)


def test_what_cannot_be_a_problem_is_a_sentence():
    with Chemist() as chemist:
        ask = {"max_heavy": 6, "seconds": 30.0, "device": "cpu"}
        with pytest.raises(ValueError, match="MMFF94s has no parameters for some atom of this molecule: choose UFF"):
            molecule_shapes("CB(O)O", "MMFF94s", 0, chemist, **ask)
        with pytest.raises(ValueError, match="at most 6 are read"):
            molecule_shapes("CCCCCCC", "MMFF94s", 0, chemist, **ask)


def test_geometries_that_cannot_be_found_are_left_out():
    """The first ones missing is an error with a remedy; later ones missing is only fewer."""

    class Failing(Chemist):
        def embed(self, *arguments, **named):
            raise ValueError("RDKit found no conformer of this molecule")

    problem = MoleculeShapes(chemistry.read_molecule("CCO"), "MMFF94s", 0, Failing(), 5.0, "cpu")
    with pytest.raises(ValueError, match="found no conformer"):
        problem.embedded(0, 4)
    later = problem.embedded(4, 4)
    assert later.shape == (0, 9, 3) and np.dtype(np.float64) == later.numpy().dtype
