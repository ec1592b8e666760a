"""Molecules through RDKit, in this process: read, embed, minimise, compare; for strangers' input see `chemist`."""

__all__ = [
    "FIELDS",
    "Molecule",
    "aligned",
    "embed",
    "energies",
    "minimise",
    "rdkit_mol",
    "read_many",
    "read_molecule",
    "rmsd_matrix",
    "sdf_records",
    "superposed",
    "symbols",
]

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from studio.problems.molecule_reading import reading
from studio.problems.molecule_text import read_many, sdf_records

FIELDS = ("MMFF94s", "MMFF94", "UFF")
MAX_HEAVY = 150
MOST_CONFORMERS = 1_000
MOST_STEPS = 100_000
FAR = 1_000.0
RING = 5
LARGE_RING = 8
# Beyond so many heavy atoms, starting from distances mostly fails and starting from random places works.
LARGE = 60
# RDKit's strict definition of a rotatable bond, read on the molecule without hydrogens.
ROTATABLE = (
    "[!$(*#*)&!D1&!$(C(F)(F)F)&!$(C(Cl)(Cl)Cl)&!$(C(Br)(Br)Br)&!$(C([CH3])([CH3])[CH3])&!$([CD3](=[N,O,S])-!@[#7,O,S"
    "!D1])&!$([#7,O,S!D1]-!@[CD3]=[N,O,S])&!$([CD3](=[N+])-!@[#7!D1])&!$([#7!D1]-!@[CD3]=[N+])]-,:;!@[!$(*#*)&!D1&"
    "!$(C(F)(F)F)&!$(C(Cl)(Cl)Cl)&!$(C(Br)(Br)Br)&!$(C([CH3])([CH3])[CH3])]"
)


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule with all its hydrogens, the heavy atoms first; it depends on its canonical SMILES alone.

    `binary` is RDKit's own form of it. `bonds` and `orders` (1, 2, 3 or 1.5) list every bond, `heavy` every atom that
    is not hydrogen; `ranks` are equal for atoms that symmetry exchanges. `torsions` has four atoms a rotatable bond,
    `rings` four a single bond of a ring of five or more; `large` counts those in no ring smaller than eight.
    `fields` names the force fields that have parameters for it, and `notes` what reading it left out or chose.
    """

    smiles: str
    title: str
    binary: bytes
    symbols: tuple[str, ...]
    charges: Int[np.ndarray, " a"]
    bonds: Int[np.ndarray, "b 2"]
    orders: Float[np.ndarray, " b"]
    heavy: Int[np.ndarray, " h"]
    ranks: Int[np.ndarray, " a"]
    torsions: Int[np.ndarray, "t 4"]
    rings: Int[np.ndarray, "r 4"]
    large: int
    fields: tuple[str, ...]
    notes: tuple[str, ...]


def read_molecule(text: str, max_heavy: int = MAX_HEAVY) -> Molecule:
    """Return the molecule of a SMILES, of a mol block or of the first record of an SDF.

    Raises `ValueError`, one sentence with the remedy, where it is no whole molecule of at most `max_heavy` atoms other
    than hydrogen that a force field knows.
    """
    from rdkit import rdBase

    found = reading(text, max_heavy)
    with rdBase.BlockLogs():
        try:
            return _described(found.mol, found.smiles, found.title, found.notes)
        except RuntimeError as error:
            raise ValueError(f"RDKit could not describe the molecule {found.smiles[:80]}: give another one") from error


def rdkit_mol(molecule: Molecule) -> Any:
    """Return RDKit's molecule (`rdkit.Chem.Mol`), with hydrogens and without conformers, its own for every caller."""
    from rdkit import Chem

    mol = Chem.Mol(molecule.binary)  # type: ignore[call-overload]
    Chem.GetSymmSSSR(mol)
    return mol


def embed(
    molecule: Molecule, n: int, seed: int = 0, seconds: float = 10.0, threads: int = 1, first: int = 0
) -> Float64[np.ndarray, "k a 3"]:
    """Return conformers `first` to `first + n` in ångström by ETKDGv3; fewer where some failed or time was over.

    Conformer i depends on the molecule, the seed and i alone. Raises `ValueError` where there is none at all.
    Source: Wang, Witek, Landrum and Riniker 2020, doi:10.1021/acs.jcim.0c00025, as RDKit has it.
    """
    from rdkit import rdBase

    if not 1 <= n <= MOST_CONFORMERS:
        raise ValueError(f"the number of conformers must be between 1 and {MOST_CONFORMERS:,}, got {n}")
    mol, base = rdkit_mol(molecule), _seed(seed) + first
    end = time.monotonic() + seconds
    found: list[np.ndarray] = []
    with rdBase.BlockLogs():
        began, index, size = time.monotonic(), 0, 1
        while index < n and time.monotonic() < end:
            size = min(size, n - index)
            found += _embedded(mol, base + index, size, end, threads)
            index += size
            each, left = (time.monotonic() - began) / index, end - time.monotonic()
            if each > left and found:
                break
            size = max(1, min(32, int(0.25 * left / max(each, 1e-6))))
    if not found:
        late = f"within {seconds:g} s: give a smaller molecule or more seconds"
        never = "at all, it is too strained: give another one"
        raise ValueError(f"RDKit found no conformer of this molecule {late if time.monotonic() >= end else never}")
    return np.stack(found)


def minimise(
    molecule: Molecule, positions: Float[np.ndarray, "n a 3"], field: str, steps: int = 2_000, threads: int = 1
) -> tuple[Float64[np.ndarray, "n a 3"], Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return relaxed positions (ångström), their energies (kcal/mol) and whether each came to rest within the steps.

    `field` is one of the molecule's `fields`. Raises `ValueError` where it is not, or where positions do not fit.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdForceFieldHelpers as helpers

    if not 0 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be between 0 and {MOST_STEPS:,}, got {steps}")
    mol = _with_conformers(molecule, positions, field)
    with rdBase.BlockLogs():
        if field == "UFF":
            ends = helpers.UFFOptimizeMoleculeConfs(mol, threads, steps)
        else:
            ends = helpers.MMFFOptimizeMoleculeConfs(mol, threads, steps, field, FAR)
    relaxed = np.array([conformer.GetPositions() for conformer in mol.GetConformers()], dtype=np.float64)
    reached = np.array([energy for _, energy in ends], dtype=np.float64)
    return relaxed.reshape(positions.shape), reached, np.array([not left for left, _ in ends], dtype=bool)


def energies(molecule: Molecule, positions: Float[np.ndarray, "n a 3"], field: str) -> Float64[np.ndarray, " n"]:
    """Return the energy of each conformer in kcal/mol, from RDKit's own force field."""
    from rdkit import rdBase
    from rdkit.Chem import rdForceFieldHelpers as helpers

    mol = _with_conformers(molecule, positions, field)
    with rdBase.BlockLogs():
        if field == "UFF":
            fields = (helpers.UFFGetMoleculeForceField(mol, confId=row) for row in range(len(positions)))
        else:
            known = helpers.MMFFGetMoleculeProperties(mol, field)
            fields = (helpers.MMFFGetMoleculeForceField(mol, known, FAR, row) for row in range(len(positions)))
        return np.array([found.CalcEnergy() for found in fields], dtype=np.float64)


def rmsd_matrix(
    molecule: Molecule, positions: Float[np.ndarray, "n a 3"], max_matches: int = 300
) -> Float64[np.ndarray, "n n"]:
    """Return the distance of every two conformers: the least RMSD of their heavy atoms in ångström.

    The least over rotations and over the molecule's own symmetries, of which `max_matches` are tried.
    """
    from rdkit import rdBase

    from studio.problems.conformer_metrics import self_rmsd

    _check_positions(molecule, positions)
    with rdBase.BlockLogs():
        return self_rmsd(rdkit_mol(molecule), positions, max_matches)


def superposed(molecule: Molecule, positions: Float[np.ndarray, "n a 3"]) -> Float64[np.ndarray, "n a 3"]:
    """Return conformers moved and turned onto the first one's heavy atoms, and all about their centre."""
    _check_positions(molecule, positions)
    return aligned(positions, positions[0], molecule.heavy)


def aligned(
    positions: Float[np.ndarray, "n a 3"], target: Float[np.ndarray, "a 3"], heavy: Int[np.ndarray, " h"]
) -> Float64[np.ndarray, "n a 3"]:
    """Return geometries moved and turned so that their atoms `heavy` come nearest to the target's, about its centre.

    Source: Kabsch 1976, doi:10.1107/S0567739476001873.
    """
    centred = positions - positions[:, heavy].mean(axis=1, keepdims=True)
    goal = target[heavy] - target[heavy].mean(axis=0)
    u, _, vt = np.linalg.svd(np.einsum("nhi,hj->nij", centred[:, heavy], goal))
    flip = np.ones((len(positions), 1, 3))
    flip[:, 0, 2] = np.sign(np.linalg.det(u @ vt))
    return centred @ (u * flip @ vt)


def symbols(numbers: list[int]) -> tuple[str, ...]:
    """Return the symbols of elements by their atomic numbers."""
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    return tuple(table.GetElementSymbol(number) for number in numbers)


def _described(mol: Any, smiles: str, title: str, notes: tuple[str, ...]) -> Molecule:
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers as helpers

    whole = Chem.AddHs(mol)
    fields = tuple(
        field for field in FIELDS if (helpers.UFFHasAllMoleculeParams(whole) if field == "UFF" else _mmff(whole, field))
    )
    if not fields:
        raise ValueError(_unknown(whole))
    atoms, bonds = list(whole.GetAtoms()), list(whole.GetBonds())
    rings, info = _ring_torsions(mol), mol.GetRingInfo()
    return Molecule(
        smiles=smiles,
        title=title,
        binary=whole.ToBinary(int(Chem.PropertyPickleOptions.NoProps)),
        symbols=tuple(atom.GetSymbol() for atom in atoms),
        charges=np.array([atom.GetFormalCharge() for atom in atoms], dtype=np.int64),
        bonds=_rows([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds], 2),
        orders=np.array([bond.GetBondTypeAsDouble() for bond in bonds], dtype=np.float64),
        heavy=np.array([atom.GetIdx() for atom in atoms if atom.GetAtomicNum() > 1], dtype=np.int64),
        ranks=np.array(Chem.CanonicalRankAtoms(whole, breakTies=False), dtype=np.int64),
        torsions=_rows(_torsions(mol), 4),
        rings=_rows(list(rings.values()), 4),
        large=sum(not any(info.IsBondInRingOfSize(bond, size) for size in range(3, LARGE_RING)) for bond in rings),
        fields=fields,
        notes=notes,
    )


def _mmff(mol: Any, field: str) -> bool:
    from rdkit.Chem import rdForceFieldHelpers as helpers

    return helpers.MMFFGetMoleculeProperties(mol, field) is not None


def _unknown(mol: Any) -> str:
    """Return which atom no force field knows, in a sentence."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers as helpers

    table = Chem.GetPeriodicTable()
    odd = [atom for atom in mol.GetAtoms() if helpers.GetUFFVdWParams(mol, atom.GetIdx(), atom.GetIdx()) is None]
    name = table.GetElementName(odd[0].GetAtomicNum()).lower() if odd else "an atom"
    return f"neither MMFF nor UFF has parameters for {name} as it is bonded here: give another molecule"


def _torsions(mol: Any) -> list[tuple[int, int, int, int]]:
    """Return four atoms a rotatable bond, the outer ones the heaviest neighbours and among equals the first."""
    from rdkit import Chem

    found = []
    for second, third in mol.GetSubstructMatches(Chem.MolFromSmarts(ROTATABLE), maxMatches=10_000):
        first, fourth = _outer(mol, second, third), _outer(mol, third, second)
        single = mol.GetBondBetweenAtoms(second, third).GetBondType() == Chem.BondType.SINGLE
        if first is not None and fourth is not None and single:
            found.append((first, second, third, fourth))
    return found


def _outer(mol: Any, atom: int, other: int) -> int | None:
    """Return the heaviest neighbour of an atom besides another one, the first of equals; None where there is none."""
    around = mol.GetAtomWithIdx(atom).GetNeighbors()
    heavy = [found for found in around if found.GetIdx() != other and found.GetAtomicNum() > 1]
    ranked = sorted(heavy, key=lambda found: (-found.GetAtomicNum(), found.GetIdx()))
    return ranked[0].GetIdx() if ranked else None


def _ring_torsions(mol: Any) -> dict[int, tuple[int, int, int, int]]:
    """Return four atoms of one ring for each single bond of a ring of five or more, the smallest such ring."""
    from rdkit import Chem

    found: dict[int, tuple[int, int, int, int]] = {}
    for ring in sorted(mol.GetRingInfo().AtomRings(), key=len):
        for place in range(len(ring) if len(ring) >= RING else 0):
            first, second, third, fourth = (ring[(place + step) % len(ring)] for step in range(4))
            bond = mol.GetBondBetweenAtoms(second, third)
            if bond.GetBondType() == Chem.BondType.SINGLE:
                found.setdefault(bond.GetIdx(), (first, second, third, fourth))
    return {index: found[index] for index in sorted(found)}


def _rows(values: list[Any], width: int) -> Int[np.ndarray, "n w"]:
    return np.array(values, dtype=np.int64).reshape(-1, width)


def _seed(seed: int) -> int:
    """Return the first of the seeds of a run, one a conformer, as RDKit takes them."""
    return int.from_bytes(hashlib.sha256(f"conformers/{seed}".encode()).digest()[:4], "little") >> 2


def _embedded(mol: Any, seed: int, count: int, end: float, threads: int) -> list[np.ndarray]:
    """Return the conformers of `count` neighbouring seeds; where some fail, each is tried again on its own."""
    large = mol.GetNumHeavyAtoms() > LARGE
    found = _attempt(mol, seed, count, end, threads, large)
    if len(found) == count:
        return found
    if time.monotonic() >= end:
        return []
    if count == 1:
        return [] if large else _attempt(mol, seed, 1, end, threads, True)
    alone = (_embedded(mol, seed + step, 1, end, threads) for step in range(count) if time.monotonic() < end)
    return [positions for found in alone for positions in found]


def _attempt(mol: Any, seed: int, count: int, end: float, threads: int, anywhere: bool) -> list[np.ndarray]:
    """Return what RDKit embeds in one call, starting from random places (`anywhere`) or from distances."""
    from rdkit.Chem import rdDistGeom

    options = rdDistGeom.ETKDGv3()
    options.randomSeed, options.enableSequentialRandomSeeds, options.numThreads = seed, True, threads
    options.useRandomCoords = anywhere
    options.timeout = max(1, int(end - time.monotonic()))
    ids = rdDistGeom.EmbedMultipleConfs(mol, count, options)
    return [mol.GetConformer(index).GetPositions() for index in ids if index >= 0]


def _with_conformers(molecule: Molecule, positions: np.ndarray, field: str) -> Any:
    """Return RDKit's molecule with a copy of these positions as its conformers."""
    from rdkit import Chem

    _check_positions(molecule, positions)
    if field not in molecule.fields:
        raise ValueError(f"{field} has no parameters for this molecule: choose {' or '.join(molecule.fields)}")
    mol = rdkit_mol(molecule)
    for row in positions.astype(np.float64):
        conformer = Chem.Conformer(len(molecule.symbols))
        conformer.SetPositions(np.ascontiguousarray(row))
        mol.AddConformer(conformer, assignId=True)
    return mol


def _check_positions(molecule: Molecule, positions: np.ndarray) -> None:
    if positions.ndim != 3 or positions.shape[1:] != (len(molecule.symbols), 3) or not len(positions):
        raise ValueError(
            f"positions must have the shape (n, {len(molecule.symbols)}, 3) with at least one conformer, "
            f"got {positions.shape}"
        )
    if not np.isfinite(positions).all():
        raise ValueError("positions must be finite numbers: at least one of them is not")
