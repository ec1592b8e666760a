"""MMFF94 as tensor operations: the formulas of `studio.problems.mmff` for devices without a compiled pass.

Atoms are the first axis and conformers the last, so that every operation runs over conformers without a stride. Every
atom gathers its partners and sums over them, each pair being seen from both of its ends: nothing is scattered, so sums
have one order and the same input gives the same bytes on every device.
"""

__all__ = ["TensorTerms", "tensor_terms"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.problems.mmff_terms import BUFFER_CHARGE, COULOMB, CUBIC, UNIT, MMFFTerms, rest_lengths

SMALLEST = 1e-16
# The pairs of conformers done at once, in numbers of one intermediate result (a gigabyte in double precision).
AT_ONCE = 2**27
Vectors = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Local:
    """One kind of bonded interaction: its vectors between atoms (heads minus tails, v to a term) and its constants."""

    heads: Int[Tensor, "v t"]
    tails: Int[Tensor, "v t"]
    constants: Float[Tensor, "c t 1"]

    def vectors(self, x: Float[Tensor, "a 3 n"]) -> tuple[Tensor, ...]:
        """Return the terms' vectors between atoms, each (t, 3, n)."""
        return tuple(x[heads] - x[tails] for heads, tails in zip(self.heads, self.tails, strict=True))


@dataclass(frozen=True, eq=False)
class TensorTerms:
    """The interactions of `MMFFTerms` as tensors; `owners` (m, a) says which atom belongs to which molecule.

    `partners` (a, d) are the atoms that each atom meets, filled up with itself; `pair_constants` are 1/R*, epsilon, the
    product of charges, and 1 where filled up. `slots` (a, s) are the rows of all bonded terms' vector gradients that
    each atom adds up, `signs` theirs (0 where filled up).
    """

    partners: Int[Tensor, "a d"]
    pair_constants: Float[Tensor, "4 a d 1"]
    bonds: Local
    angles: Local
    planes: Local
    torsions: Local
    slots: Int[Tensor, "a s"]
    signs: Float[Tensor, "a s 1 1"]
    owners: Float[Tensor, "m a"]
    bonded_owners: Float[Tensor, "m t"]

    def with_gradients(self, positions: Float[Tensor, "n a 3"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n a 3"]]:
        """Return energies in kcal/mol and gradients in kcal/mol/angstrom."""
        share = max(1, AT_ONCE // max(1, self.partners.numel()))
        parts = [self._some(part.detach().permute(1, 2, 0).contiguous()) for part in positions.split(share)]
        energies, gradients = (torch.cat(found, dim=-1) for found in zip(*parts, strict=True))
        return energies.T.contiguous(), gradients.permute(2, 0, 1).contiguous()

    def _some(self, x: Float[Tensor, "a 3 n"]) -> tuple[Float[Tensor, "m n"], Float[Tensor, "a 3 n"]]:
        met, gradient = _pairs(x, self.partners, self.pair_constants)
        found = [
            kind(local.vectors(x), local.constants)
            for kind, local in (
                (_bonds, self.bonds), (_angles, self.angles), (_planes, self.planes), (_torsions, self.torsions),
            )
        ]  # fmt: skip
        energies = [energy for energy, _ in found]
        vectors = torch.cat([slope for _, slopes in found for slope in slopes])
        if len(vectors):
            gradient = gradient + (vectors[self.slots] * self.signs).sum(dim=1)
        return self.owners @ met + self.bonded_owners @ torch.cat(energies), gradient


def tensor_terms(
    terms: MMFFTerms, atoms: Sequence[int], device: torch.device, dtype: torch.dtype
) -> TensorTerms:  # fmt: skip
    """Return interactions as tensors; `atoms` are the sizes of the molecules that they are of, in their order."""
    molecule = np.repeat(np.arange(len(atoms)), atoms)
    bend = np.column_stack([
        0.5 * UNIT * terms.angle_constants[:, 0] * ~terms.straight, np.deg2rad(terms.angle_constants[:, 1]),
        UNIT * terms.stretch_bend, rest_lengths(terms), UNIT * terms.angle_constants[:, 0] * terms.straight,
    ])  # fmt: skip
    stretch = terms.bond_constants * (0.5 * UNIT, 1.0)
    kinds = (
        (terms.bonds, ((0, 1),), stretch),
        (terms.angles, ((0, 1), (2, 1)), bend),
        (terms.out_of_plane, ((0, 1), (2, 1), (3, 1)), 0.5 * UNIT * terms.out_of_plane_constants[:, None]),
        (terms.torsions, ((0, 1), (1, 2), (3, 2)), 0.5 * terms.torsion_constants),
    )

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=device).to(dtype)

    def index(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=device)

    local = [
        Local(
            index(np.stack([places[:, head] for head, _ in ends])),
            index(np.stack([places[:, tail] for _, tail in ends])),
            tensor(constants.T[:, :, None]),
        )
        for places, ends, constants in kinds
    ]
    heads = np.concatenate([part.heads.cpu().numpy().ravel() for part in local])
    tails = np.concatenate([part.tails.cpu().numpy().ravel() for part in local])
    slots, signs = _incidence(heads, tails, terms.atoms)
    partners, pair_constants = _directed(terms)
    first = np.concatenate([places[:, 0] for places, _, _ in kinds])
    whose = np.arange(len(atoms))[:, None]
    bonds, angles, planes, torsions = local
    return TensorTerms(
        index(partners), tensor(pair_constants[..., None]), bonds, angles, planes, torsions, index(slots),
        tensor(signs[:, :, None, None]), tensor(whose == molecule), tensor(whose == molecule[first]),
    )  # fmt: skip


def _directed(terms: MMFFTerms) -> tuple[np.ndarray, np.ndarray]:
    """Return each atom's partners, filled up with itself to the largest number, and the constants of those pairs."""
    first, second = np.concatenate([terms.pairs, terms.pairs[:, ::-1]]).T
    values = np.concatenate([terms.pair_constants, terms.pair_constants]) * (1.0, 1.0, COULOMB)
    values[:, 0] = 1 / values[:, 0]
    row, column, width = _places(first, terms.atoms)
    partners = np.repeat(np.arange(terms.atoms)[:, None], max(width, 1), axis=1)
    constants = np.zeros((4, *partners.shape))
    constants[[0, 3]] = 1.0
    order = np.argsort(first, kind="stable")
    partners[row, column] = second[order]
    constants[:3, row, column] = values[order].T
    constants[3, row, column] = 0.0
    return partners, constants


def _incidence(heads: np.ndarray, tails: np.ndarray, atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each atom, the vectors it is the head (+1) or the tail (-1) of, filled up with sign 0."""
    ends, sign = np.concatenate([heads, tails]), np.repeat([1.0, -1.0], len(heads))
    row, column, width = _places(ends, atoms)
    slots, signs = np.zeros((atoms, max(width, 1)), dtype=np.int64), np.zeros((atoms, max(width, 1)))
    order = np.argsort(ends, kind="stable")
    slots[row, column] = order % max(len(heads), 1)
    signs[row, column] = sign[order]
    return slots, signs


def _places(ends: np.ndarray, atoms: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return row and column of each sorted entry in a table with one row an atom, and the table's width."""
    counts = np.bincount(ends, minlength=atoms)
    starts = np.cumsum(counts) - counts
    return np.repeat(np.arange(atoms), counts), np.arange(len(ends)) - np.repeat(starts, counts), int(counts.max())


def _pairs(x: Tensor, partners: Tensor, constants: Tensor) -> tuple[Tensor, Tensor]:
    """Return each atom's half of its pairs' energies (a, n) and its gradient (a, 3, n)."""
    inverse, epsilon, charge, filled = constants
    apart = x[:, None] - x[partners]
    r = apart.square().sum(dim=2).add_(filled).sqrt_()
    rho = r * inverse
    near = 1.07 / (rho + 0.07)
    sixth = rho.square() * rho.square() * rho.square()
    far = 1 / (sixth * rho + 0.12)
    well = 1.12 * far - 2
    seventh = near.square().square() * near.square() * near * epsilon
    buffered = 1 / (r + BUFFER_CHARGE)
    coulomb = charge * buffered
    slope = -7 * inverse * seventh * (well * near / 1.07 + 1.12 * sixth * far.square()) - coulomb * buffered
    gradient = (apart * (slope / r)[:, :, None]).sum(dim=1)
    return 0.5 * (seventh * well + coulomb).sum(dim=1), gradient


def _bonds(vectors: Vectors, constants: Tensor) -> tuple[Tensor, Vectors]:
    (u,) = vectors
    k, length = constants
    r = _norm(u)
    d = r - length
    return k * d * d * (1 - 2 * d + 7 / 3 * d * d), (u * (k * d * (2 - 6 * d + 28 / 3 * d * d) / r)[:, None],)


def _angles(vectors: Vectors, constants: Tensor) -> tuple[Tensor, Vectors]:
    u, v = vectors
    ka, angle, first, second, r_u, r_v, straight = constants
    lu, lv = _norm(u), _norm(v)
    cos = ((u * v).sum(dim=1) / (lu * lv)).clamp(-1, 1)
    bend = cos.acos() - angle
    stretch = first * (lu - r_u) + second * (lv - r_v)
    energy = (ka * bend * (1 - CUBIC * bend) + stretch) * bend + straight * (1 + cos)
    slope = straight - (ka * bend * (2 - 3 * CUBIC * bend) + stretch) / (1 - cos * cos).clamp(min=SMALLEST).sqrt()
    across = (slope / (lu * lv))[:, None]
    along_u = (first * bend / lu - slope * cos / lu.square())[:, None]
    along_v = (second * bend / lv - slope * cos / lv.square())[:, None]
    return energy, (across * v + along_u * u, across * u + along_v * v)


def _planes(vectors: Vectors, constants: Tensor) -> tuple[Tensor, Vectors]:
    u, v, w = vectors
    normal = torch.linalg.cross(u, v, dim=1)
    ln, lw = _norm(normal), _norm(w)
    normal, out = normal / ln[:, None], w / lw[:, None]
    sin = (normal * out).sum(dim=1).clamp(-1, 1)
    chi = sin.asin()
    slope = 2 * constants[0] * chi / (1 - sin * sin).clamp(min=SMALLEST).sqrt()
    leaving = (slope / lw)[:, None] * (normal - sin[:, None] * out)
    turning = (slope / ln)[:, None] * (out - sin[:, None] * normal)
    sides = torch.linalg.cross(v, turning, dim=1), torch.linalg.cross(turning, u, dim=1)
    return constants[0] * chi * chi, (*sides, leaving)


def _torsions(vectors: Vectors, constants: Tensor) -> tuple[Tensor, Vectors]:
    f, c, h = vectors
    v1, v2, v3 = constants
    a, b = torch.linalg.cross(f, c, dim=1), torch.linalg.cross(h, c, dim=1)
    la, lb = _norm(a), _norm(b)
    a, b = a / la[:, None], b / lb[:, None]
    cos = (a * b).sum(dim=1)
    energy = v1 * (1 + cos) + v2 * (2 - 2 * cos * cos) + v3 * (1 + cos * (4 * cos * cos - 3))
    slope = v1 - 4 * v2 * cos + v3 * (12 * cos * cos - 3)
    p = (slope / la)[:, None] * (b - cos[:, None] * a)
    q = (slope / lb)[:, None] * (a - cos[:, None] * b)
    middle = torch.linalg.cross(p, f, dim=1) + torch.linalg.cross(q, h, dim=1)
    return energy, (torch.linalg.cross(c, p, dim=1), middle, torch.linalg.cross(c, q, dim=1))


def _norm(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1).clamp(min=SMALLEST).sqrt()
