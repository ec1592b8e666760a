"""MMFF94 and MMFF94s for batches of conformers in torch: exact energies and their gradients, on any device.

Halgren, "Merck molecular force field I-V", J. Comput. Chem. 17 (1996), 490-641. With d = r - r0, t = theta - theta0:

    stretching      143.9325/2 kb d^2 (1 - 2 d + 7/3 d^2)
    bending         143.9325/2 ka t^2 (1 - 0.4 t);  at a straight centre 143.9325 ka (1 + cos theta)
    stretch-bend    143.9325 t (k_ijk d_ij + k_kji d_kj)
    out of plane    143.9325/2 koop chi^2,  chi the Wilson angle
    torsion         1/2 [V1 (1 + cos w) + V2 (1 - cos 2w) + V3 (1 + cos 3w)]
    van der Waals   eps (1.07/(p + 0.07))^7 (1.12/(p^7 + 0.12) - 2),  p = r/R*
    charges         332.0716 q_i q_j / (r + 0.05), three quarters of it where three bonds apart

in kcal/mol, angstrom and radians. The cubic bending constant is RDKit's (0.006981317 per degree), whose energies these
equal to rounding; MMFF94s differs from MMFF94 in constants alone. Gradients are written out: backpropagation sees one
operation, not sixty, and is not differentiable a second time. On a processor `studio.problems.mmff_fused` does the
work, in double precision whatever the tensors are; elsewhere the tensor operations below do.
"""

__all__ = ["MMFF", "packed"]

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from studio.problems.mmff_tensors import TensorTerms, tensor_terms
from studio.problems.mmff_terms import MMFFTerms

if TYPE_CHECKING:
    from studio.problems.mmff_fused import FusedTerms

# Fewer conformers a thread than this cost more to hand out than they save.
SHARE = 16


@dataclass(frozen=True, eq=False)
class MMFF:
    """The force field of one molecule, or of several side by side: their atoms follow each other in `positions`.

    Conformer i of one molecule goes with conformer i of the others; each molecule has energies of its own.
    """

    molecules: tuple[MMFFTerms, ...]

    @property
    def atoms(self) -> int:
        """Return the atoms of all molecules together."""
        return sum(terms.atoms for terms in self.molecules)

    def energies_kcal_mol(self, positions_angstrom: Float[Tensor, "n a 3"]) -> Float[Tensor, "n m"]:
        """Return each conformer's energy for each of the m molecules, once differentiable in the positions.

        A shape that does not fit the molecules is a `ValueError`.
        """
        if not positions_angstrom.requires_grad:
            return self.with_gradients(positions_angstrom)[0]
        return _Energies.apply(positions_angstrom, self)  # type: ignore[return-value]

    def with_gradients(
        self, positions_angstrom: Float[Tensor, "n a 3"]
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n a 3"]]:
        """Return energies in kcal/mol and gradients in kcal/mol/angstrom, neither differentiable."""
        positions = self._checked(positions_angstrom)
        if positions.device.type == "cpu":
            return self._fused(positions)
        return self._tensors(positions.device, positions.dtype).with_gradients(positions)

    def curvature(self, positions_angstrom: Float[Tensor, "n a 3"]) -> Float[Tensor, "n d d"]:
        """Return a positive curvature of each conformer in kcal/mol/angstrom^2, to precondition with (d = 3 a).

        Only for a single molecule: several have no curvature in common; else a `ValueError`.
        """
        if len(self.molecules) != 1:
            raise ValueError(f"curvature is of one molecule, got {len(self.molecules)}: take them one by one")
        from studio.problems.mmff_curvature import curvature

        positions = self._checked(positions_angstrom)
        found = curvature(self._fused_terms[0], positions.double().cpu().contiguous().numpy())
        return torch.from_numpy(found).to(positions_angstrom)

    def tensor_terms(self, like: Tensor) -> TensorTerms:
        """Return the interactions as tensors of a type and on a device: what runs anywhere but on a processor."""
        return self._tensors(like.device, like.dtype)

    def _checked(self, positions: Tensor) -> Tensor:
        """Return positions without their graph; a compiled pass would read and write beyond those that do not fit."""
        if positions.ndim != 3 or positions.shape[1:] != (self.atoms, 3):
            has = " x ".join(map(str, positions.shape))
            raise ValueError(f"positions must have {self.atoms} atoms, as the molecules do; got {has}")
        return positions.detach()

    def _tensors(self, device: torch.device, dtype: torch.dtype) -> TensorTerms:
        key = (str(device), dtype)
        if key not in self._made:
            atoms = [terms.atoms for terms in self.molecules]
            self._made[key] = tensor_terms(packed(self.molecules), atoms, device, dtype)
        return self._made[key]

    @cached_property
    def _made(self) -> dict[tuple[str, torch.dtype], TensorTerms]:
        return {}

    @cached_property
    def _fused_terms(self) -> "tuple[FusedTerms, ...]":
        from studio.problems.mmff_fused import fused_terms

        return tuple(fused_terms(terms) for terms in self.molecules)

    @cached_property
    def _edges(self) -> tuple[tuple[int, int], ...]:
        return tuple(pairwise(accumulate((terms.atoms for terms in self.molecules), initial=0)))

    def _fused(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        whole = positions.to(torch.float64).contiguous().numpy()
        energies, gradients = np.empty((len(whole), len(self.molecules))), np.empty(whole.shape)
        threads = min(torch.get_num_threads(), os.cpu_count() or 1, len(whole) // SHARE)
        if threads < 2:
            self._fill(whole, energies, gradients)
        else:
            parts = zip(*(np.array_split(a, threads) for a in (whole, energies, gradients)), strict=True)
            with ThreadPoolExecutor(threads) as pool:
                for done in [pool.submit(self._fill, *part) for part in parts]:
                    done.result()
        return torch.from_numpy(energies).to(positions.dtype), torch.from_numpy(gradients).to(positions.dtype)

    def _fill(self, positions: np.ndarray, energies: np.ndarray, gradients: np.ndarray) -> None:
        from studio.problems.mmff_fused import fused

        if len(self.molecules) == 1:
            fused(self._fused_terms[0], positions, energies[:, 0], gradients)
            return
        for index, (first, last) in enumerate(self._edges):
            own, slopes = np.empty(len(positions)), np.empty((len(positions), last - first, 3))
            fused(self._fused_terms[index], positions[:, first:last].copy(), own, slopes)
            energies[:, index], gradients[:, first:last] = own, slopes


def packed(molecules: Sequence[MMFFTerms]) -> MMFFTerms:
    """Return the interactions of several molecules as those of one system whose parts do not meet.

    Raises `ValueError` for no molecule and for molecules of different variants.
    """
    if len({terms.variant for terms in molecules}) != 1:
        raise ValueError("molecules must be at least one, all of one variant: MMFF94s or MMFF94")
    starts = list(accumulate((terms.atoms for terms in molecules), initial=0))
    moved = [
        replace(
            terms, bonds=terms.bonds + at, angles=terms.angles + at, out_of_plane=terms.out_of_plane + at,
            torsions=terms.torsions + at, pairs=terms.pairs + at,
        )
        for terms, at in zip(molecules, starts, strict=False)
    ]  # fmt: skip
    names = [name for name in vars(moved[0]) if name not in ("variant", "atoms")]
    joined = {name: np.concatenate([getattr(terms, name) for terms in moved]) for name in names}
    return replace(moved[0], atoms=starts[-1], **joined)


class _Energies(torch.autograd.Function):
    """Energies as one node of a graph: the gradients were computed with them."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, field: MMFF) -> Tensor:
        energies, gradients = field.with_gradients(positions)
        ctx.save_for_backward(gradients)
        ctx.atoms = [terms.atoms for terms in field.molecules]
        return energies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        counts = torch.tensor(ctx.atoms, device=gradients.device)
        return gradients * grads[0].repeat_interleave(counts, dim=1)[:, :, None], None
