"""A molecule as a problem: geometries embedded by RDKit behind its clock, energies and gradients from our MMFF94."""

__all__ = ["MoleculeShapes", "molecule_shapes"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.core.molecules import Skeleton
from studio.problems.chemist import Chemist
from studio.problems.chemistry import Molecule
from studio.problems.conformers import Rotors, Turns, rotors
from studio.problems.mmff import MMFF

UFF = "UFF"
# RDKit's minimiser begins anew with every call: few long calls, not many short ones.
STRIDES = 10


@dataclass(frozen=True, eq=False)
class MoleculeShapes:
    """One molecule in one force field on one device; RDKit's part is done by `chemist`, within `seconds` a call.

    With UFF, which only RDKit has, there are no gradients: nothing turns, and RDKit minimises.
    """

    molecule: Molecule
    field: str
    seed: int
    chemist: Chemist
    seconds: float
    device: str

    @property
    def smooth(self) -> bool:
        """Whether there are gradients."""
        return self.field != UFF

    @property
    def turning(self) -> int:
        """How many bonds turn."""
        return len(self.rotors.atoms) if self.smooth else 0

    @property
    def fixed(self) -> int:
        """How many bonds are in large rings, whose shape only embedding changes."""
        return self.molecule.large

    @property
    def skeleton(self) -> Skeleton:
        """What all geometries have in common."""
        return self._skeleton

    @cached_property
    def _skeleton(self) -> Skeleton:
        from rdkit.Chem import GetPeriodicTable

        table, molecule = GetPeriodicTable(), self.molecule
        return Skeleton(
            molecule.smiles, molecule.title, self.field, molecule.notes,
            torch.tensor([table.GetAtomicNumber(symbol) for symbol in molecule.symbols]),
            torch.from_numpy(molecule.charges), torch.from_numpy(molecule.bonds),
            torch.from_numpy(molecule.orders), torch.from_numpy(molecule.heavy),
        )  # fmt: skip

    @cached_property
    def mmff(self) -> MMFF:
        """The force field of the molecule."""
        return MMFF((self.chemist.terms(self.molecule, self.field, self.seconds),))

    @cached_property
    def rotors(self) -> Rotors:
        """The bonds that turn."""
        molecule = self.molecule
        parts = (molecule.torsions, molecule.bonds, molecule.orders, molecule.ranks)
        return rotors(*(torch.from_numpy(part) for part in parts)).to(self.device)

    def embedded(self, first: int, count: int) -> Float[Tensor, "k a 3"]:
        """Return geometries number `first` and following; a `ValueError` where none of the first can be found."""
        try:
            found = self.chemist.embed(self.molecule, count, self.seed, self.seconds, first=first)
        except ValueError:
            if not first:
                raise
            found = np.zeros((0, len(self.molecule.symbols), 3))
        return torch.from_numpy(found).to(self.device)

    def energies(self, geometries: Float[Tensor, "n a 3"]) -> Float[Tensor, " n"]:
        """Return energies in kcal/mol."""
        if self.smooth:
            return self.mmff.with_gradients(geometries)[0][:, 0]
        found = self.chemist.energies(self.molecule, _array(geometries), self.field, self.seconds)
        return torch.from_numpy(found).to(geometries)

    def objective(self, points: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Return energies in kcal/mol and their gradients in kcal/mol/angstrom."""
        energies, gradients = self.mmff.with_gradients(points.view(len(points), -1, 3))
        return energies[:, 0], gradients.view(points.shape)

    def curvature(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n d d"]:
        """Return a positive curvature of the energies."""
        return self.mmff.curvature(points.view(len(points), -1, 3))

    def relaxed(
        self, geometries: Float[Tensor, "n a 3"], rounds: int
    ) -> tuple[Float[Tensor, "n a 3"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return the geometries minimised by RDKit, their energies, and which have come to rest."""
        steps = STRIDES * rounds
        found = self.chemist.minimise(self.molecule, _array(geometries), self.field, steps, seconds=self.seconds)
        positions, energies, at_rest = (torch.from_numpy(part) for part in found)
        return positions.to(geometries), energies.to(geometries), at_rest

    def turns(self, geometries: Float[Tensor, "n a 3"]) -> Turns:
        """Return the energy over turns of the bonds of these geometries."""
        return Turns(self.mmff, self.rotors, geometries)

    def turned(self, geometries: Float[Tensor, "n a 3"], turns: Float[Tensor, "n t"]) -> Float[Tensor, "n a 3"]:
        """Return the geometries with their bonds turned."""
        return self.rotors.turned(geometries, turns)

    def unlike(self, geometries: Float[Tensor, "n a 3"]) -> Float[Tensor, "n n"]:
        """Return the heavy-atom RMSD in angstrom of every two geometries, the molecule's symmetries seen."""
        return torch.from_numpy(self.chemist.rmsd_matrix(self.molecule, _array(geometries), seconds=self.seconds))


def molecule_shapes(
    text: str, field: str, seed: int, chemist: Chemist, *, max_heavy: int, seconds: float, device: str
) -> MoleculeShapes:
    """Return the molecule of a SMILES or a mol block as a problem.

    Raises `ValueError`, one sentence with the remedy, for text that is no molecule and one the field does not know.
    """
    molecule = chemist.read(text, max_heavy)
    if field not in molecule.fields:
        known = " or ".join(molecule.fields)
        raise ValueError(f"{field} has no parameters for some atom of this molecule: choose {known} as the force field")
    return MoleculeShapes(molecule, field, seed, chemist, seconds, device)


def _array(geometries: Tensor) -> np.ndarray:
    return geometries.detach().double().cpu().contiguous().numpy()
