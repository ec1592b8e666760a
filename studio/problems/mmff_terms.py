"""What MMFF94 says about one molecule: every interaction with its constants, read through RDKit's public getters.

Halgren, "Merck molecular force field I-V", J. Comput. Chem. 17 (1996), 490-641; MMFF94s: J. Comput. Chem. 20 (1999),
720. RDKit types the atoms and looks the constants up; which interactions there are is worked out here, as RDKit has no
getter for that: an interaction for which its getter returns nothing is not one.
"""

__all__ = [
    "BUFFER_CHARGE",
    "COULOMB",
    "CUBIC",
    "LINEAR_TYPES",
    "UNIT",
    "VARIANTS",
    "MMFFTerms",
    "mmff_terms",
    "rest_lengths",
]

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from rdkit import Chem

VARIANTS = ("MMFF94s", "MMFF94")
# The atom types whose angle is straight: MMFF's property file marks them, and RDKit has no getter for the mark.
LINEAR_TYPES = (4, 53, 61)
# kcal/mol per mdyn angstrom: MMFF's other prefactors are this one with degrees turned into radians.
UNIT = 143.9325
# The cubic term of bending, per radian: RDKit's 0.006981317 per degree.
CUBIC = 0.006981317 * 180 / math.pi
COULOMB = 332.0716
BUFFER_CHARGE = 0.05
FARTHEST = 3


@dataclass(frozen=True, eq=False)
class MMFFTerms:
    """The interactions of one molecule of `atoms` atoms: indices of atoms, and constants in MMFF's own units.

    Stretching: force constants in mdyn/angstrom, lengths in angstrom. Bending: mdyn angstrom/rad^2, degrees, and
    whether the centre (the middle atom) is straight; `stretch_bend` holds k_ijk and k_kji in mdyn/rad of the same
    angles, 0 where there is none. Out of plane: the second atom is the centre, the fourth leaves the plane of the other
    three. Torsions: V1, V2, V3 in kcal/mol. Pairs: three bonds apart or more, within one part of the molecule: R* in
    angstrom, epsilon in kcal/mol, the product of the charges (e^2; three quarters of it where three bonds apart).
    """

    variant: str
    atoms: int
    bonds: Int[np.ndarray, "b 2"]
    bond_constants: Float[np.ndarray, "b 2"]
    angles: Int[np.ndarray, "n 3"]
    angle_constants: Float[np.ndarray, "n 2"]
    straight: Bool[np.ndarray, " n"]
    stretch_bend: Float[np.ndarray, "n 2"]
    out_of_plane: Int[np.ndarray, "o 4"]
    out_of_plane_constants: Float[np.ndarray, " o"]
    torsions: Int[np.ndarray, "t 4"]
    torsion_constants: Float[np.ndarray, "t 3"]
    pairs: Int[np.ndarray, "p 2"]
    pair_constants: Float[np.ndarray, "p 3"]


def mmff_terms(mol: "Chem.Mol", variant: str = "MMFF94s") -> MMFFTerms:
    """Return the interactions of a sanitised molecule with explicit hydrogens.

    Raises `ValueError` for an unknown variant and for a molecule with atoms that MMFF94 has no type for.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers

    # On a copy: typing marks the molecule, and a second typing of the same one may come out differently.
    mol = Chem.Mol(mol)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    if properties is None:
        raise ValueError(f"{variant} has no type for some atom of this molecule: choose UFF, which knows every element")
    near = [[n.GetIdx() for n in atom.GetNeighbors()] for atom in mol.GetAtoms()]
    types = [properties.GetMMFFAtomType(i) for i in range(len(near))]
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    angles = [(i, j, k) for j, around in enumerate(near) for i, k in combinations(around, 2)]
    stretches = _known(bonds, lambda ij: properties.GetMMFFBondStretchParams(mol, *ij))
    bends = _known(angles, lambda ijk: properties.GetMMFFAngleBendParams(mol, *ijk))
    straight = [types[j] in LINEAR_TYPES for (_, j, _), _ in bends]
    both = [
        (None if flat else properties.GetMMFFStretchBendParams(mol, *ijk)) or (0, 0.0, 0.0)
        for (ijk, _), flat in zip(bends, straight, strict=True)
    ]
    centres = [(j, around) for j, around in enumerate(near) if len(around) == 3]
    wilson = [(i, j, k, out) for j, (a, b, c) in centres for i, k, out in ((a, b, c), (a, c, b), (b, c, a))]
    planes = _known(wilson, lambda ijkl: _constant(properties.GetMMFFOopBendParams(mol, *ijkl)))
    turns = [
        (i, j, k, end) for j, k in bonds for i in near[j] for end in near[k] if i != k and end != j and i != end
    ]  # fmt: skip
    torsions = _known(turns, lambda ijkl: properties.GetMMFFTorsionParams(mol, *ijkl))
    pairs, constants = _pairs(mol, properties, types)
    return MMFFTerms(
        variant, len(near),
        _indices(stretches, 2), _constants(stretches, 2),
        _indices(bends, 3), _constants(bends, 2), np.array(straight, dtype=bool),
        np.array([found[1:] for found in both], dtype=np.float64).reshape(-1, 2),
        _indices(planes, 4), _constants(planes, 1)[:, 0],
        _indices(torsions, 4), _constants(torsions, 3),
        pairs, constants,
    )  # fmt: skip


def rest_lengths(terms: MMFFTerms) -> Float[np.ndarray, "n 2"]:
    """Return the lengths at rest of the two bonds i-j and k-j of each angle, in angstrom."""
    lengths = np.zeros((terms.atoms, terms.atoms))
    lengths[terms.bonds[:, 0], terms.bonds[:, 1]] = terms.bond_constants[:, 1]
    lengths += lengths.T
    i, j, k = terms.angles.T
    return np.column_stack([lengths[i, j], lengths[k, j]])


Found = list[tuple[tuple[int, ...], tuple[Any, ...]]]


def _known(places: list[Any], constants: Any) -> Found:
    """Return the places at which there is an interaction, each with what its getter returned."""
    found = ((place, constants(place)) for place in places)
    return [(place, values) for place, values in found if values is not None and any(values[1:])]


def _constant(value: float | None) -> tuple[int, float] | None:
    return None if value is None else (0, value)


def _indices(found: Found, width: int) -> Int[np.ndarray, "n w"]:
    return np.array([place for place, _ in found], dtype=np.int64).reshape(-1, width)


def _constants(found: Found, width: int) -> Float[np.ndarray, "n w"]:
    return np.array([values[1:] for _, values in found], dtype=np.float64).reshape(-1, width)


def _pairs(
    mol: "Chem.Mol", properties: Any, types: list[int]
) -> tuple[Int[np.ndarray, "p 2"], Float[np.ndarray, "p 3"]]:
    """Return the pairs that do not share a bond or an angle, with R*, epsilon and the product of the charges.

    R* and epsilon depend on the two atom types alone, so one getter call a pair of types is enough.
    """
    from rdkit import Chem

    apart = Chem.GetDistanceMatrix(mol)
    first, second = np.triu_indices(len(types), k=1)
    bonds = apart[first, second]
    kept = (bonds >= FARTHEST) & (bonds < len(types))
    first, second, bonds = first[kept], second[kept], bonds[kept]
    kinds = np.array(types, dtype=np.int64)
    _, where, which = np.unique(
        np.sort(np.stack([kinds[first], kinds[second]], axis=1), axis=1), axis=0, return_index=True, return_inverse=True
    )
    radii = [properties.GetMMFFVdWParams(int(first[p]), int(second[p]))[2:] for p in where]
    charges = np.array([properties.GetMMFFPartialCharge(i) for i in range(len(types))])
    product = charges[first] * charges[second] * np.where(bonds == FARTHEST, 0.75, 1.0)
    radius = np.array(radii, dtype=np.float64).reshape(-1, 2)[which.ravel()]
    return np.stack([first, second], axis=1), np.concatenate([radius, product[:, None]], axis=1)
