"""Conformers of one molecule: its energy over bonds that turn, over atoms that move, and what makes two of them unlike.

A conformer is a geometry whose rotatable bonds are turned. Turning moves one side of a bond as a rigid body, so bonds
and angles stay as they are and barriers are only those of torsions and contacts; relaxing then moves every atom.
"""

__all__ = ["Rotors", "Turns", "rotors"]

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studio.problems.mmff import MMFF


@dataclass(frozen=True, eq=False)
class Rotors:
    """The bonds of a molecule that turn, one a row of `atoms` (the four of its torsion angle).

    `moved` marks the atoms that turn with the fourth one; `orders` is how many turns by 1/order give the same molecule
    (a phenyl group: 2).
    """

    atoms: Int[Tensor, "t 4"]
    moved: Bool[Tensor, "t a"]
    orders: Int[Tensor, " t"]

    def to(self, device: str) -> "Rotors":
        """Return the rotors on a device."""
        return Rotors(self.atoms.to(device), self.moved.to(device), self.orders.to(device))

    def angles(self, positions: Float[Tensor, "n a 3"]) -> Float[Tensor, "n t"]:
        """Return the torsion angles in radians, IUPAC's sign."""
        first, second, third, fourth = (positions[:, index] for index in self.atoms.T)
        axis = third - second
        left = torch.linalg.cross(first - second, axis)
        right = torch.linalg.cross(fourth - third, axis)
        sine = (torch.linalg.cross(left, right) * axis).sum(dim=-1) / axis.norm(dim=-1)
        return torch.atan2(sine, (left * right).sum(dim=-1))

    def turned(self, positions: Float[Tensor, "n a 3"], turns: Float[Tensor, "n t"]) -> Float[Tensor, "n a 3"]:
        """Return the geometries with each torsion angle increased by its turn, in radians (Rodrigues' rotation)."""
        if positions.device.type == "cpu":
            return self._turned_at_once(positions, turns)
        for (_, start, end, _), moved, turn in zip(self.atoms.tolist(), self.moved, turns.T, strict=True):
            axis = positions[:, end] - positions[:, start]
            axis = (axis / axis.norm(dim=1, keepdim=True))[:, None]
            arm = positions[:, moved] - positions[:, end][:, None]
            cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
            along = (arm * axis).sum(dim=2, keepdim=True) * axis
            arm = cos * arm + sin * torch.linalg.cross(axis.expand_as(arm), arm) + (1 - cos) * along
            positions = positions.clone()
            positions[:, moved] = arm + positions[:, end][:, None]
        return positions

    def _turned_at_once(self, positions: Tensor, turns: Tensor) -> Tensor:
        from studio.problems.rotor_pass import turn_all

        found = positions.detach().to(torch.float64, copy=True).contiguous()
        turn_all(found.numpy(), self.atoms.numpy(), self.moved.numpy(), turns.detach().double().contiguous().numpy())
        return found.to(positions.dtype)

    def torques(self, positions: Float[Tensor, "n a 3"], slopes: Float[Tensor, "n a 3"]) -> Float[Tensor, "n t"]:
        """Return the derivative of an energy in each turn, given its gradient in the positions."""
        start, end = positions[:, self.atoms[:, 1]], positions[:, self.atoms[:, 2]]
        axis = end - start
        axis = axis / axis.norm(dim=2, keepdim=True)
        moved = self.moved.to(positions)
        force = moved @ slopes
        about = moved @ torch.linalg.cross(positions, slopes) - torch.linalg.cross(end, force)
        return (axis * about).sum(dim=2)


@dataclass(frozen=True, eq=False)
class Turns:
    """The energy of n geometries over their turns: a `Population` whose member i starts from geometry i.

    Features are cosine and sine of each torsion angle, of the angle times its order where the rotor is symmetric.
    """

    field: MMFF
    rotors: Rotors
    geometry: Float[Tensor, "n a 3"]

    def start(self, n: int, generator: torch.Generator) -> Float[Tensor, "n t"]:
        """Return no turns yet; `n` is the number of geometries."""
        return self.geometry.new_zeros(n, len(self.rotors.atoms))

    def loss(self, points: Float[Tensor, "n t"]) -> Float[Tensor, " n"]:
        """Return each member's energy in kcal/mol, once differentiable in the turns."""
        return _Turned.apply(points, self)  # type: ignore[return-value]

    def features(self, points: Float[Tensor, "n t"]) -> Float[Tensor, "n k"]:
        """Return cosines and sines of the torsion angles."""
        angles = (self.rotors.angles(self.geometry) + points) * self.rotors.orders
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, turns: Tensor, problem: Turns) -> Tensor:
        positions = problem.rotors.turned(problem.geometry, turns)
        energies, slopes = problem.field.with_gradients(positions)
        ctx.save_for_backward(problem.rotors.torques(positions, slopes))
        return energies[:, 0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (torques,) = ctx.saved_tensors
        return torques * grads[0][:, None], None


def rotors(
    atoms: Int[Tensor, "t 4"], bonds: Int[Tensor, "b 2"], kinds: Float[Tensor, " b"], ranks: Int[Tensor, " a"]
) -> Rotors:
    """Return the rotors of the torsions in `atoms`, each turning the smaller side of its bond.

    `kinds` are the orders of the bonds (1, 1.5, 2, 3); `ranks` are equal for atoms that symmetry exchanges. Raises
    `ValueError` for a torsion around a bond of a ring.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count, ends = len(ranks), bonds.numpy()
    flat = {int(atom) for atom in ends[kinds.numpy() > 1].ravel()}
    rows, moved, orders = [], [], []
    for torsion in atoms.tolist():
        _, start, end, _ = torsion
        rest = ends[~(((ends == start) | (ends == end)).all(axis=1))]
        graph = coo_array((np.ones(len(rest)), (rest[:, 0], rest[:, 1])), shape=(count, count))
        _, part = connected_components(graph, directed=False)
        if part[start] == part[end]:
            raise ValueError(f"the bond between atoms {start} and {end} is in a ring and cannot turn")
        if (part == part[end]).sum() > (part == part[start]).sum():
            torsion, start, end = torsion[::-1], end, start
        rows.append(torsion)
        moved.append(part == part[end])
        orders.append(math.lcm(*(_order(ends, ranks.numpy(), flat, *way) for way in ((start, end), (end, start)))))
    return Rotors(
        torch.tensor(rows, dtype=torch.long).reshape(-1, 4),
        torch.from_numpy(np.array(moved, dtype=bool).reshape(-1, count)),
        torch.tensor(orders, dtype=torch.long),
    )


def _order(bonds: Any, ranks: Any, flat: set[int], start: int, end: int) -> int:
    """Return the symmetry of the end of a bond: how many like neighbours it has there, 1 where they differ.

    Two like neighbours are exchanged by half a turn only where they lie in a plane with the bond: on an atom with a
    multiple bond, and not on the pyramid of an amine.
    """
    touching = bonds[(bonds == end).any(axis=1)]
    others = [int(a + b - end) for a, b in touching if start not in (a, b)]
    alike = len({int(ranks[other]) for other in others}) == 1
    return len(others) if alike and (len(others) != 2 or end in flat) else 1
