"""How near two sets of conformers are: best heavy-atom RMSD with symmetry, coverage, matching and what is distinct.

With R the matrix of distances from m references to n generated conformers and t a threshold in angstrom:

    COV-R = mean_i [min_j R_ij <= t]    MAT-R = mean_i min_j R_ij    (recall: is every reference found?)
    COV-P = mean_j [min_i R_ij <= t]    MAT-P = mean_j min_i R_ij    (precision: is everything found a reference?)

Two published protocols share these names and must not be mixed. Both generate 2K conformers where there are K
references and take means over molecules. ConfGF (Shi et al. 2021, arXiv 2105.03902) and GeoDiff (Xu et al. 2022,
arXiv 2203.02923) count distances up to and including the threshold; GeoMol (Ganea et al. 2021, arXiv 2106.07802) and
torsional diffusion (Jing et al. 2022, arXiv 2206.01729) only those below it, a molecule for which nothing could be
generated covers nothing, and its matching is left out of the mean. `GEOMOL_DRUGS` has the threshold of the torsional
diffusion paper; GeoMol's own was 1.25.
"""

__all__ = [
    "CONFGF_DRUGS",
    "CONFGF_QM9",
    "GEOMOL_DRUGS",
    "GEOMOL_QM9",
    "Protocol",
    "Scores",
    "coverage",
    "cross_rmsd",
    "distinct",
    "groups",
    "matching",
    "scores",
    "self_rmsd",
]

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64, Int

if TYPE_CHECKING:
    from rdkit import Chem

MOST_MATCHES = 300
# So many overlaps of two conformers under one symmetry are worked on at once: they stay in the processor's cache.
CHUNK = 8192
ROWS = 16
# Carboxylates, nitro groups, amidines and the like: their end atoms are drawn differently and are alike (RDKit's rule).
ENDS = "[O,N;D1;$([O,N;D1]-[*]=[O,N;D1]),$([O,N;D1]=[*]-[O,N;D1])]~[*]"
TINY = 1e-300


@dataclass(frozen=True)
class Protocol:
    """A threshold in angstrom, and whether a distance equal to it is too far (`strict`)."""

    threshold: float
    strict: bool


CONFGF_DRUGS = Protocol(1.25, strict=False)
CONFGF_QM9 = Protocol(0.5, strict=False)
GEOMOL_DRUGS = Protocol(0.75, strict=True)
GEOMOL_QM9 = Protocol(0.5, strict=True)


@dataclass(frozen=True)
class Scores:
    """Coverages as fractions and matchings in angstrom, of recall (`_r`) and precision (`_p`)."""

    cov_r: float
    mat_r: float
    cov_p: float
    mat_p: float


def cross_rmsd(
    mol: "Chem.Mol",
    references: Float[np.ndarray, "m a 3"],
    generated: Float[np.ndarray, "n a 3"],
    max_matches: int = MOST_MATCHES,
) -> Float64[np.ndarray, "m n"]:
    """Return the least RMSD in angstrom of every reference to every generated conformer, by turning and relabelling.

    Positions are in the atom order of `mol`; its hydrogens are left out, its own conformers are not looked at. Of the
    symmetries of the heavy atoms at most `max_matches` are tried; where there are more, a distance may be too large.
    The values are those of RDKit's `GetBestRMS` on molecules without any hydrogen (`RemoveAllHs`). Raises `ValueError`
    where the positions do not fit the molecule or are not finite, or it has no heavy atom.
    """
    heavy, matches = _symmetries(mol, max_matches)
    left, right = _centred(mol, references, heavy), _centred(mol, generated, heavy)
    found = np.empty((len(left), len(right)))
    for begin in range(0, len(left), ROWS):
        found[begin : begin + ROWS] = _best_rmsd(left[begin : begin + ROWS], right, matches)
    return found


def self_rmsd(
    mol: "Chem.Mol", positions: Float[np.ndarray, "n a 3"], max_matches: int = MOST_MATCHES
) -> Float64[np.ndarray, "n n"]:
    """Return the same distances within one set: symmetric, with zeros on the diagonal."""
    heavy, matches = _symmetries(mol, max_matches)
    points = _centred(mol, positions, heavy)
    found = np.empty((len(points), len(points)))
    for begin in range(0, len(points), ROWS):
        block = _best_rmsd(points[begin : begin + ROWS], points[begin:], matches)
        found[begin : begin + ROWS, begin:] = block
        found[begin:, begin : begin + ROWS] = block.T
    upper = np.triu(found, 1)
    return upper + upper.T


def coverage(rmsd: Float[np.ndarray, "m n"], threshold: float, strict: bool) -> tuple[float, float]:
    """Return COV-R and COV-P as fractions; both are 0 where nothing was generated.

    `strict` counts distances below the threshold, otherwise those equal to it count too. Raises `ValueError` without
    references.
    """
    _check_references(rmsd)
    near = rmsd < threshold if strict else rmsd <= threshold
    return float(near.any(axis=1).mean()), float(near.any(axis=0).mean()) if rmsd.shape[1] else 0.0


def matching(rmsd: Float[np.ndarray, "m n"]) -> tuple[float, float]:
    """Return MAT-R and MAT-P in angstrom; both are nan where nothing was generated.

    Raises `ValueError` without references.
    """
    _check_references(rmsd)
    if not rmsd.shape[1]:
        return float("nan"), float("nan")
    return float(rmsd.min(axis=1).mean()), float(rmsd.min(axis=0).mean())


def scores(rmsd: Float[np.ndarray, "m n"], threshold: float, strict: bool) -> Scores:
    """Return coverage and matching together, as `coverage` and `matching` define them."""
    (cov_r, cov_p), (mat_r, mat_p) = coverage(rmsd, threshold, strict), matching(rmsd)
    return Scores(cov_r, mat_r, cov_p, mat_p)


def distinct(
    rmsd_self: Float[np.ndarray, "n n"], energies: Float[np.ndarray, " n"], threshold: float, window: float
) -> Int[np.ndarray, " k"]:
    """Return the indices of conformers at most `window` above the lowest energy that differ, by rising energy.

    In order of energy, each is kept that lies at least `threshold` angstrom from every one kept before. Energies are in
    kcal/mol. Raises `ValueError` where an energy is not a number.
    """
    order = _by_energy(energies)
    inside = order[energies[order] <= energies.min(initial=np.inf) + window]
    return _kept(rmsd_self, inside, threshold)


def groups(
    rmsd_self: Float[np.ndarray, "n n"], energies: Float[np.ndarray, " n"], threshold: float
) -> Int[np.ndarray, " n"]:
    """Return the number of each conformer's group; groups are numbered by their lowest energy, from 0.

    Every conformer that `distinct` would keep, whatever its energy, founds a group; the others belong to the first
    founder nearer than `threshold` angstrom. Raises `ValueError` where an energy is not a number.
    """
    founders = _kept(rmsd_self, _by_energy(energies), threshold)
    if not len(founders):
        return np.zeros(0, dtype=np.int64)
    near = rmsd_self[:, founders] < threshold
    near[founders, np.arange(len(founders))] = True
    return near.argmax(axis=1)


def _symmetries(mol: "Chem.Mol", most: int) -> tuple[Int[np.ndarray, " h"], Int[np.ndarray, "p h"]]:
    """Return the heavy atoms, and every relabelling of them that leaves the molecular graph as it is."""
    from rdkit import Chem

    if most < 1:
        raise ValueError(f"max_matches must be at least 1, got {most}: with 1 only the given labels are compared")
    heavy = np.array([atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() != 1], dtype=np.int64)
    if not len(heavy):
        raise ValueError("the RMSD is taken over heavy atoms and this molecule has none: choose a larger one")
    bare = Chem.RemoveAllHs(mol, sanitize=False)
    query, ends, either = Chem.RWMol(bare), _pattern(ENDS), _pattern("*-,=*").GetBondWithIdx(0)
    for end, centre in bare.GetSubstructMatches(ends):
        query.GetAtomWithIdx(end).SetFormalCharge(0)
        query.ReplaceBond(query.GetBondBetweenAtoms(end, centre).GetIdx(), either)
    matches = bare.GetSubstructMatches(query, uniquify=False, maxMatches=most)
    found, given = np.array(matches, dtype=np.int64).reshape(-1, len(heavy)), np.arange(len(heavy))
    if not (found == given).all(axis=1).any():
        found = np.vstack([given, found[: most - 1]])
    return heavy, found


@cache
def _pattern(smarts: str) -> "Chem.Mol":
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)


def _centred(
    mol: "Chem.Mol", positions: Float[np.ndarray, "n a 3"], heavy: Int[np.ndarray, " h"]
) -> Float64[np.ndarray, "n h 3"]:
    if positions.shape[1] != mol.GetNumAtoms():
        raise ValueError(
            f"positions have {positions.shape[1]} atoms and the molecule {mol.GetNumAtoms()}: "
            "give those of all its atoms, in its order"
        )
    points = positions[:, heavy].astype(np.float64)
    if not np.isfinite(points).all():
        raise ValueError("a position is not finite: leave out the conformers that went astray")
    return points - points.mean(axis=1, keepdims=True)


def _best_rmsd(
    left: Float64[np.ndarray, "m h 3"], right: Float64[np.ndarray, "n h 3"], matches: Int[np.ndarray, "p h"]
) -> Float64[np.ndarray, "m n"]:
    """Return the best RMSD of centred points, in pieces that fit the processor's cache."""
    gained = np.empty((len(left), len(right)))
    width = max(1, CHUNK // len(matches))
    for column in range(0, len(right), width):
        columns = np.ascontiguousarray(right[column : column + width].transpose(2, 1, 0))
        height = max(1, CHUNK // (len(matches) * columns.shape[2]))
        for row in range(0, len(left), height):
            rows = left[row : row + height, matches].transpose(3, 0, 1, 2)
            overlap = np.ascontiguousarray(rows).reshape(3, 1, -1, left.shape[1]) @ columns
            overlap = overlap.reshape(3, 3, -1, len(matches), columns.shape[2])
            gained[row : row + height, column : column + width] = _largest_root(_best_match(overlap))
    squares = (left**2).sum(axis=(1, 2))[:, None] + (right**2).sum(axis=(1, 2))
    return np.sqrt(np.maximum(squares - 2 * gained, 0) / left.shape[1])


def _best_match(overlap: Float64[np.ndarray, "3 3 m p n"]) -> Float64[np.ndarray, "3 3 m n"]:
    """Return the overlap under the relabelling that leaves the least RMSD."""
    if overlap.shape[3] == 1:
        return overlap[:, :, :, 0]
    best = _singular_sum(overlap).argmax(axis=1)
    return np.take_along_axis(overlap, best[None, None, :, None], axis=3)[:, :, :, 0]


def _largest_root(overlap: Float64[np.ndarray, "3 3 m n"]) -> Float64[np.ndarray, "m n"]:
    """Return what turning gains: the largest eigenvalue of Horn's 4x4 matrix (J. Opt. Soc. Am. A 4, 1987, 629)."""
    horn = (_horn() @ overlap.reshape(9, -1)).T.reshape(-1, 4, 4)
    return np.linalg.eigvalsh(horn)[:, 3].reshape(overlap.shape[2:])


@cache
def _horn() -> Float64[np.ndarray, "16 9"]:
    """Return the factors of a 3x3 matrix's entries in Horn's matrix, which is linear in them."""
    unit = np.eye(3)
    factors = np.zeros((4, 4, 3, 3))
    factors[0, 0] = unit
    factors[0, 1:] = factors[1:, 0] = np.cross(unit[:, None], unit)
    outer = unit[:, None, :, None] * unit[None, :, None, :]
    factors[1:, 1:] = outer + outer.swapaxes(0, 1) - unit[:, :, None, None] * unit
    return factors.reshape(16, 9)


def _singular_sum(overlap: Float64[np.ndarray, "3 3 *k"]) -> Float64[np.ndarray, "*k"]:
    """Return the sum of the singular values of 3x3 matrices, the least one with the sign of the determinant.

    Their squares are the roots of x^3 - a x^2 + b x - d^2, solved by cosines: a is the sum of squared entries, b that
    of squared minors, d the determinant.
    """
    one, two, three = overlap
    minors = (_cross(two, three), _cross(three, one), _cross(one, two))
    a = (overlap**2).sum(axis=(0, 1))
    b = sum((part**2 for minor in minors for part in minor), np.zeros_like(a))
    d = sum((x * y for x, y in zip(one, minors[0], strict=True)), np.zeros_like(a))
    radius = np.sqrt(np.maximum(a * a - 3 * b, 0)) / 3
    cosine = (a * (2 * a * a - 9 * b) + 27 * d * d) / np.maximum(54 * radius * radius * radius, TINY)
    angle = np.arccos(np.clip(cosine, -1, 1)) / 3
    largest = a / 3 + 2 * radius * np.cos(angle)
    middle = a / 3 + 2 * radius * np.cos(angle - 2 * np.pi / 3)
    middle = np.sqrt(np.maximum(middle, 0))
    product = np.sqrt(largest) * middle
    least = np.clip(d / np.maximum(product, TINY), -middle, middle)
    return np.sqrt(largest) + middle + least


def _cross(u: Float64[np.ndarray, "3 *k"], v: Float64[np.ndarray, "3 *k"]) -> tuple[np.ndarray, ...]:
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


def _by_energy(energies: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    if np.isnan(energies).any():
        raise ValueError("an energy is not a number: leave out the conformers whose energy failed")
    return np.argsort(energies, kind="stable")


def _kept(rmsd_self: Float[np.ndarray, "n n"], order: Int[np.ndarray, " o"], threshold: float) -> Int[np.ndarray, " k"]:
    kept: list[int] = []
    for i in order:
        if (rmsd_self[i, kept] >= threshold).all():
            kept.append(int(i))
    return np.array(kept, dtype=np.int64)


def _check_references(rmsd: Float[np.ndarray, "m n"]) -> None:
    if not len(rmsd):
        raise ValueError("there are no references to compare with: give at least one")
