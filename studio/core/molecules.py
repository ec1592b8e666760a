"""What a molecule is to a method: a skeleton that all its geometries share, and energies over them."""

__all__ = ["MolecularProblem", "Skeleton"]

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Skeleton:
    """What all geometries have in common: atomic numbers, formal charges, bonds and their orders, atoms but hydrogen.

    `field` is the force field, `notes` say in sentences what reading the molecule left out or chose.
    """

    smiles: str
    title: str
    field: str
    notes: tuple[str, ...]
    numbers: Int[Tensor, " a"]
    charges: Int[Tensor, " a"]
    bonds: Int[Tensor, "b 2"]
    orders: Float[Tensor, " b"]
    heavy: Int[Tensor, " h"]


@runtime_checkable
class MolecularProblem(Protocol):
    """A molecule's energy over its geometries and over the turns of its bonds."""

    @property
    def skeleton(self) -> Skeleton:
        """What all geometries have in common."""
        ...

    @property
    def turning(self) -> int:
        """How many of its bonds turn; 0 where `smooth` is false."""
        ...

    @property
    def fixed(self) -> int:
        """How many bonds of large rings turn with the whole ring only: for other shapes of it, embed again."""
        ...

    @property
    def smooth(self) -> bool:
        """Whether there are gradients; else `relaxed` minimises."""
        ...

    def relaxed(
        self, geometries: Float[Tensor, "n a 3"], rounds: int
    ) -> tuple[Float[Tensor, "n a 3"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return the geometries minimised for so many rounds, their energies, and which have come to rest."""
        ...

    def energies(self, geometries: Float[Tensor, "n a 3"]) -> Float[Tensor, " n"]:
        """Return energies in kcal/mol."""
        ...

    def embedded(self, first: int, count: int) -> Float[Tensor, "k a 3"]:
        """Return geometries number `first` and following, fewer where some cannot be found."""
        ...

    def objective(self, points: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Return energies in kcal/mol and their gradients in kcal/mol/angstrom, d = 3 a."""
        ...

    def curvature(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n d d"]:
        """Return a positive curvature of the energies."""
        ...

    def turns(self, geometries: Float[Tensor, "n a 3"]) -> Any:
        """Return the energy over turns of the bonds of these geometries, a `PointProblem` with features."""
        ...

    def turned(self, geometries: Float[Tensor, "n a 3"], turns: Float[Tensor, "n t"]) -> Float[Tensor, "n a 3"]:
        """Return the geometries with their bonds turned."""
        ...

    def unlike(self, geometries: Float[Tensor, "n a 3"]) -> Float[Tensor, "n n"]:
        """Return how unlike every two geometries are: heavy-atom RMSD in angstrom, the molecule's symmetries seen."""
        ...
