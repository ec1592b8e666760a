"""MMFF94 in torch: RDKit's energies and slopes, the laws an energy keeps, and batches that are only many of one."""

import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from problems.hard_molecules import DRUG_LIKE, HARD, TERMS, molecule, rdkit_answers

from studio.problems.mmff import MMFF, packed
from studio.problems.mmff_curvature import RIDGE, SOFTEST_TORSION
from studio.problems.mmff_fused import COULOMB, UNIT
from studio.problems.mmff_terms import VARIANTS, mmff_terms

IBUPROFEN = "CC(C)Cc1ccc(C(C)C(=O)O)cc1"
# Every kind of interaction, an angle that is straight and planes that are not flat among them.
MIXED = "CC#CC(=O)N(C)c1ccccc1"


@cache
def terms_of(smiles, variant="MMFF94s"):
    return mmff_terms(molecule(smiles)[0], variant)


def field(*smiles, variant="MMFF94s"):
    return MMFF(tuple(terms_of(one, variant) for one in smiles))


def many(smiles, n, seed=0):
    """Return n geometries around those of a molecule."""
    base = molecule(smiles)[1]
    noise = torch.randn(n, *base.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return base[torch.arange(n) % 3] + 0.03 * noise


def only(terms, kind):
    """Return the interactions with the constants of every kind but one set to nothing."""
    kept = {
        "Bond": "bond_constants", "Angle": "angle_constants", "StretchBend": "stretch_bend",
        "Oop": "out_of_plane_constants", "Torsion": "torsion_constants",
    }  # fmt: skip
    lengths, angles, pairs = terms.bond_constants.copy(), terms.angle_constants.copy(), terms.pair_constants.copy()
    lengths[:, 0], angles[:, 0] = 0.0, 0.0
    pairs[:, 1] *= kind == "VdW"
    pairs[:, 2] *= kind == "Ele"
    none = {
        "bond_constants": lengths, "angle_constants": angles, "stretch_bend": 0 * terms.stretch_bend,
        "out_of_plane_constants": 0 * terms.out_of_plane_constants, "torsion_constants": 0 * terms.torsion_constants,
        "pair_constants": pairs,
    }  # fmt: skip
    none.pop(kept.get(kind, ""), None)
    return replace(terms, **none)


def both(made, positions):
    """Return energies and slopes of the compiled pass and of the tensor operations."""
    return made.with_gradients(positions), made.tensor_terms(positions).with_gradients(positions)


@pytest.mark.parametrize("smiles", [*HARD, *DRUG_LIKE])
def test_energies_and_slopes_are_rdkits(smiles):
    """F28: both variants, both ways of computing, three noisy geometries."""
    mol, positions = molecule(smiles)
    for variant in VARIANTS:
        energies, slopes = rdkit_answers(mol, positions, variant)
        scale = energies.abs().clamp(min=1.0)
        for found, slope in both(field(smiles, variant=variant), positions):
            assert ((found[:, 0] - energies).abs() / scale).max() <= 1e-9, variant
            assert (slope - slopes).abs().max() <= 1e-8 * max(1.0, slopes.abs().max().item() / 100), variant


def test_the_hard_molecules_are_many_and_different():
    assert len(set(HARD)) == len(HARD) >= 49 and len(set(DRUG_LIKE)) >= 20
    found = [terms_of(smiles) for smiles in HARD]
    assert any(terms.straight.any() for terms in found) and any(not len(terms.pairs) for terms in found)
    assert any(len(terms.out_of_plane) for terms in found) and any(not len(terms.torsions) for terms in found)


@pytest.mark.parametrize("smiles", DRUG_LIKE)
def test_single_precision_stays_near(smiles):
    positions = molecule(smiles)[1]
    made = field(smiles)
    exact, single = made.with_gradients(positions)[0], made.tensor_terms(positions.float())
    found, slopes = single.with_gradients(positions.float())
    assert found.dtype == slopes.dtype == torch.float32
    assert (found.double() - exact).abs().max() <= 1e-3


def test_the_variants_differ_where_nitrogen_is_flat():
    """MMFF94s flattens delocalised nitrogen; the same constants for both would still pass on alkanes."""
    positions = molecule("CC(=O)Nc1ccc(O)cc1")[1]
    one, other = (field("CC(=O)Nc1ccc(O)cc1", variant=variant).with_gradients(positions)[0] for variant in VARIANTS)
    assert (one - other).abs().min() > 1e-3


@pytest.mark.parametrize("kind", TERMS)
def test_each_kind_of_term_alone_is_rdkits(kind):
    mol, positions = molecule(MIXED)
    energies, slopes = rdkit_answers(mol, positions, only=kind)
    assert energies.abs().max() > 1e-3, "the molecule has such terms"
    for found, slope in both(MMFF((only(terms_of(MIXED), kind),)), positions):
        torch.testing.assert_close(found[:, 0], energies, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(slope, slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
def test_energies_are_rdkits_far_from_rest(noise):
    """Longer and shorter bonds, folded angles and clashes: what a search meets before it has come to rest."""
    for smiles in (*HARD, *DRUG_LIKE):
        mol, base = molecule(smiles)
        positions = base + noise * torch.randn(base.shape, generator=torch.Generator().manual_seed(3)).double()
        energies, slopes = rdkit_answers(mol, positions)
        for found, slope in both(field(smiles), positions):
            torch.testing.assert_close(found[:, 0], energies, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(slope, slopes, rtol=1e-7, atol=1e-6 * (1 + slopes.abs().max().item() / 100))


@pytest.mark.parametrize("smiles", [IBUPROFEN, MIXED, "C[N+](C)(C)CCOC(C)=O"])
def test_turning_and_moving_a_molecule_changes_nothing(smiles):
    """F29: the energy stays to 1e-8, and slopes turn with the molecule."""
    positions = molecule(smiles)[1]
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    turn = turn * torch.linalg.det(turn)
    moved = positions @ turn.T + torch.tensor([20.0, -35.0, 7.0], dtype=torch.float64)
    for (before, slopes), (after, turned) in zip(
        both(field(smiles), positions), both(field(smiles), moved), strict=True
    ):
        assert (after - before).abs().max() <= 1e-8 and (turned - slopes @ turn.T).abs().max() <= 1e-7
        assert slopes.sum(dim=1).abs().max() <= 1e-9, "no force on the whole"
        assert torch.linalg.cross(positions, slopes).sum(dim=1).abs().max() <= 1e-8, "no torque on the whole"


def test_a_mirror_image_has_the_same_energy():
    positions = molecule(IBUPROFEN)[1]
    flip = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    before, after = (field(IBUPROFEN).with_gradients(at)[0] for at in (positions, positions * flip))
    assert (before - after).abs().max() <= 1e-9


def test_a_batch_is_its_members():
    """F29, to the last bit on a processor."""
    positions, made = many(IBUPROFEN, 64), field(IBUPROFEN)
    energies, slopes = made.with_gradients(positions)
    singles = [made.with_gradients(row[None]) for row in positions]
    assert torch.equal(energies, torch.cat([one for one, _ in singles]))
    assert torch.equal(slopes, torch.cat([one for _, one in singles]))
    tensors = made.tensor_terms(positions)
    whole = tensors.with_gradients(positions)[0]
    assert (whole - torch.cat([tensors.with_gradients(row[None])[0] for row in positions])).abs().max() <= 1e-10


def test_large_batches_are_done_in_shares(monkeypatch):
    positions, made = many(IBUPROFEN, 7), field(IBUPROFEN).tensor_terms(many(IBUPROFEN, 1))
    whole = made.with_gradients(positions)
    monkeypatch.setattr("studio.problems.mmff_tensors.AT_ONCE", 2 * made.partners.numel() + 1)
    shares = made.with_gradients(positions)
    assert all((one - other).abs().max() <= 1e-10 for one, other in zip(whole, shares, strict=True))


def test_packed_molecules_are_those_alone():
    """Their energies stand side by side, and none feels another: slopes are those of each alone."""
    names = ("COCCOCCOC", MIXED, "O=C=O", "O")
    apart = [many(name, 5, seed) for seed, name in enumerate(names)]
    together, made = torch.cat(apart, dim=1), field(*names)
    singles = [field(name).with_gradients(at) for name, at in zip(names, apart, strict=True)]
    assert made.atoms == together.shape[1]
    (energies, slopes), (as_tensors, slopes_too) = both(made, together)
    assert torch.equal(energies, torch.cat([one for one, _ in singles], dim=1))
    assert torch.equal(slopes, torch.cat([one for _, one in singles], dim=1))
    assert (as_tensors - energies).abs().max() <= 1e-9 and (slopes_too - slopes).abs().max() <= 1e-8
    assert packed(made.molecules).atoms == made.atoms


def test_backpropagation_gives_the_slopes():
    positions, made = many(MIXED, 4).requires_grad_(), field(MIXED)
    energies, slopes = made.with_gradients(positions)
    assert not energies.requires_grad and not slopes.requires_grad
    found = made.energies_kcal_mol(positions)
    assert torch.equal(found.detach(), energies) and torch.equal(made.energies_kcal_mol(positions.detach()), energies)
    found.sum().backward()
    assert torch.equal(positions.grad, slopes)


def test_each_packed_energy_has_its_own_weight():
    names = ("COCCOCCOC", "O")
    positions = torch.cat([many(name, 3) for name in names], dim=1).requires_grad_()
    made = field(*names)
    slopes = made.with_gradients(positions)[1]
    (made.energies_kcal_mol(positions) * torch.tensor([2.0, -1.0], dtype=torch.float64)).sum().backward()
    atoms = made.molecules[0].atoms
    assert torch.equal(positions.grad[:, :atoms], 2 * slopes[:, :atoms])
    assert torch.equal(positions.grad[:, atoms:], -slopes[:, atoms:])


@pytest.mark.parametrize("smiles", ["O=C=O", "CC(=O)N", "COP(=O)(O)O"])
def test_slopes_are_those_of_the_energy(smiles):
    made, positions = field(smiles), molecule(smiles)[1][:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(made.energies_kcal_mol, (positions,), eps=1e-6, atol=1e-5, rtol=1e-6)


def test_a_second_differentiation_is_refused():
    positions, made = many("O", 2).requires_grad_(), field("O")
    (slopes,) = torch.autograd.grad(made.energies_kcal_mol(positions).square().sum(), positions, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slopes.sum().backward()


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(ValueError, match=r"must have 3 atoms, as the molecules do"):
        field("O").with_gradients(many("CCO", 2))
    mixed = (terms_of("O", "MMFF94s"), terms_of("CCO", "MMFF94"))
    for molecules in ((), mixed):
        with pytest.raises(ValueError, match="all of one variant: MMFF94s or MMFF94"):
            packed(molecules)
    with pytest.raises(ValueError, match="one of MMFF94s, MMFF94, got 'UFF'"):
        mmff_terms(molecule("O")[0], "UFF")
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs(), pytest.raises(ValueError, match="has no type for some atom of this molecule: choose UFF"):
        mmff_terms(Chem.AddHs(Chem.MolFromSmiles("CB(C)C")))
    with pytest.raises(ValueError, match="curvature is of one molecule, got 2"):
        field("O", "CCO").curvature(torch.zeros(1, 12, 3, dtype=torch.float64))


def test_curvature_of_other_atoms_is_refused():
    """The compiled pass reads and writes where it is told to: what does not fit must not reach it."""
    with pytest.raises(ValueError, match="must have 9 atoms"):
        field("CCO").curvature(many("O", 1))
    with pytest.raises(ValueError, match="must have 3 atoms"):
        field("O").curvature(many("CCO", 1))


def test_memory_changes_no_bytes():
    """The same input gives the same bytes wherever a thread's scratch happens to lie."""
    positions, made = many(IBUPROFEN, 40), field(IBUPROFEN)
    energies, slopes = made.with_gradients(positions)
    same = []

    def again():
        for _ in range(10):
            found, slope = made.with_gradients(positions)
            same.append(torch.equal(found, energies) and torch.equal(slope, slopes))

    for _ in range(4):
        thread = threading.Thread(target=again)
        thread.start()
        thread.join()
    assert len(same) == 40 and all(same)


def test_threads_change_no_bytes(monkeypatch):
    positions, made = many(IBUPROFEN, 70), field(IBUPROFEN, "O")
    positions = torch.cat([positions, many("O", 70)], dim=1)
    alone, before = made.with_gradients(positions), torch.get_num_threads()
    calls, fill = [], MMFF._fill
    monkeypatch.setattr(MMFF, "_fill", lambda self, x, *rest: (calls.append(len(x)), fill(self, x, *rest))[1])
    monkeypatch.setattr("studio.problems.mmff.os.cpu_count", lambda: 3)
    try:
        torch.set_num_threads(3)
        shared = made.with_gradients(positions)
    finally:
        torch.set_num_threads(before)
    assert sorted(calls) == [23, 23, 24]
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


def test_arguments_stay_and_types_come_back():
    positions = many(MIXED, 3)
    kept, made = positions.clone(), field(MIXED)
    made.with_gradients(positions), made.curvature(positions), made.tensor_terms(positions).with_gradients(positions)
    assert torch.equal(positions, kept)
    energies, slopes = made.with_gradients(positions.float())
    assert energies.dtype == slopes.dtype == torch.float32
    sliced = torch.zeros(3, positions.shape[1], 6, dtype=torch.float64)
    sliced[..., ::2] = positions
    assert torch.equal(made.with_gradients(sliced[..., ::2])[0], made.with_gradients(positions)[0])


def test_no_conformer_is_no_energy():
    energies, slopes = field(MIXED, "O").with_gradients(torch.zeros(0, 3 + len(molecule(MIXED)[1][0]), 3).double())
    assert energies.shape == (0, 2) and slopes.shape[0] == 0


def test_an_atom_alone_has_no_energy():
    terms = mmff_terms(molecule("[Na+]")[0])
    for energies, slopes in both(MMFF((terms,)), torch.ones(2, 1, 3, dtype=torch.float64)):
        assert not energies.any() and energies.shape == (2, 1) and not slopes.any() and slopes.shape == (2, 1, 3)


@pytest.mark.parametrize("smiles", ["[NH4+]", "O=C=O", MIXED, IBUPROFEN])
def test_curvature_is_symmetric_and_positive(smiles):
    found = field(smiles).curvature(many(smiles, 6))
    assert (found - found.mT).abs().max() <= 1e-9 * found.abs().max()
    assert torch.linalg.eigvalsh(found).amin() >= RIDGE - 1e-8


def test_curvature_turns_with_the_molecule():
    positions, made = many(MIXED, 2), field(MIXED)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    turn = turn * torch.linalg.det(turn)
    whole = torch.block_diag(*[turn] * positions.shape[1])
    expected = whole @ made.curvature(positions) @ whole.T
    torch.testing.assert_close(made.curvature(positions @ turn.T + 3.0), expected, rtol=1e-8, atol=1e-7)


def length(x, i, j):
    return (x[i] - x[j]).norm()


def bend(x, i, j, k):
    u, v = x[i] - x[j], x[k] - x[j]
    return torch.atan2(torch.linalg.cross(u, v).norm(), u @ v)


def wilson(x, i, j, k, end):
    normal = torch.linalg.cross(x[i] - x[j], x[k] - x[j])
    out = x[end] - x[j]
    return torch.asin(normal @ out / (normal.norm() * out.norm()))


def dihedral(x, i, j, k, end):
    axis = x[k] - x[j]
    left, right = torch.linalg.cross(x[i] - x[j], axis), torch.linalg.cross(x[end] - x[k], axis)
    return torch.atan2(torch.linalg.cross(left, right) @ axis / axis.norm(), left @ right)


def pair_energy(r, radius, epsilon, charge):
    p = r / radius
    return epsilon * (1.07 / (p + 0.07)) ** 7 * (1.12 / (p**7 + 0.12) - 2) + COULOMB * charge / (r + 0.05)


def second(energy, at):
    """Return the second derivative of an energy of one number."""
    leaf = at.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(leaf), leaf, create_graph=True)
    return torch.autograd.grad(slope, leaf)[0]


def stiffness(terms, kind):
    """Yield the coordinate, the atoms and how stiff it is at a value of it, for each term of one kind."""
    if kind == "Bond":
        for at, (k, r0) in zip(terms.bonds, terms.bond_constants, strict=True):
            yield (
                length,
                at,
                lambda r, k=k, r0=r0: second(
                    lambda q: UNIT / 2 * k * (q - r0) ** 2 * (1 - 2 * (q - r0) + 7 / 3 * (q - r0) ** 2), r
                ),
            )
    if kind == "Angle":
        for at, (k, _) in zip(terms.angles, terms.angle_constants, strict=True):
            yield bend, at, lambda _, k=k: UNIT * k
    if kind == "Oop":
        for at, k in zip(terms.out_of_plane, terms.out_of_plane_constants, strict=True):
            yield wilson, at, lambda _, k=k: UNIT * k
    if kind == "Torsion":
        for at, (v1, v2, v3) in zip(terms.torsions, terms.torsion_constants, strict=True):
            yield (
                dihedral,
                at,
                lambda w, v1=v1, v2=v2, v3=v3: (
                    0.5 * (-v1 * w.cos() + 4 * v2 * (2 * w).cos() - 9 * v3 * (3 * w).cos())
                ).clamp(min=SOFTEST_TORSION),
            )
    if kind == "Pair":
        for at, (radius, epsilon, charge) in zip(terms.pairs, terms.pair_constants, strict=True):
            yield (
                length,
                at,
                lambda r, c=(radius, epsilon, charge): second(lambda q: pair_energy(q, *c), r).clamp(min=0.0),
            )


@pytest.mark.parametrize("kind", ["Bond", "Angle", "Oop", "Torsion", "Pair"])
def test_curvature_is_that_of_each_term_along_its_own_coordinate(kind):
    """H = ridge I + sum_t k_t grad q_t grad q_t^T, with every k_t and grad q_t found by differentiating."""
    terms, x = terms_of("CC(=O)NC"), molecule("CC(=O)NC")[1][0]
    kept = {
        "Bond": ("bonds", "bond_constants"), "Angle": ("angles", "angle_constants", "straight", "stretch_bend"),
        "Oop": ("out_of_plane", "out_of_plane_constants"), "Torsion": ("torsions", "torsion_constants"),
        "Pair": ("pairs", "pair_constants"),
    }[kind]  # fmt: skip
    arrays = {name: value for name, value in vars(terms).items() if isinstance(value, np.ndarray)}
    alone = replace(terms, **{name: value[:0] for name, value in arrays.items() if name not in kept})
    expected = RIDGE * torch.eye(x.numel(), dtype=torch.float64)
    for coordinate, at, stiff in stiffness(terms, kind):
        leaf = x.clone().requires_grad_()
        value = coordinate(leaf, *at.tolist())
        (slope,) = torch.autograd.grad(value, leaf)
        expected = expected + stiff(value.detach()) * torch.outer(slope.ravel(), slope.ravel())
    found = MMFF((alone,)).curvature(x[None])[0]
    assert (expected - RIDGE * torch.eye(x.numel()).double()).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-7)
