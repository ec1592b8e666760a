"""What a population of conformers looks like: superposed in space, and as energy against difference."""

__all__ = ["molecule_scene", "trade_off"]

import numpy as np
from jaxtyping import Float

from studio.methods.conformer_search import Shapes
from studio.problems.chemistry import aligned, symbols
from studio.problems.conformer_metrics import groups
from studio.scenes import Members, Molecules


def molecule_scene(snapshot: Shapes, alike: float) -> Molecules:
    """Return the members superposed by their heavy atoms on the lowest one, and so their path."""
    skeleton = snapshot.skeleton
    heavy = skeleton.heavy.cpu().numpy()
    energies = snapshot.energies.double().cpu().numpy()
    positions = snapshot.positions.double().cpu().numpy()
    lowest = int(energies.argmin())
    target = aligned(positions[lowest][None], positions[lowest], heavy)[0]
    shapes = _groups(snapshot, energies, alike)
    relative = energies - energies.min()
    captions = tuple(
        f"Conformer {index + 1}: {energy:.2f} kcal/mol above the lowest" + _said(snapshot, shapes, index)
        for index, energy in enumerate(relative.tolist())
    )
    path = snapshot.path.double().cpu().numpy()
    moments = aligned(path.reshape(-1, *path.shape[2:]), target, heavy).reshape(path.shape)
    return Molecules(
        title=skeleton.title or skeleton.smiles, smiles=skeleton.smiles, symbols=symbols(skeleton.numbers.tolist()),
        charges=skeleton.charges.cpu().numpy(), bonds=skeleton.bonds.cpu().numpy(),
        orders=skeleton.orders.cpu().numpy(), positions=aligned(positions, target, heavy), energies=relative,
        groups=shapes, captions=captions, path=moments, field=skeleton.field, lowest=float(energies.min()),
    )  # fmt: skip


def trade_off(snapshot: Shapes, scene: Molecules) -> Members:
    """Return each conformer's energy against its distance to the nearest other one."""
    nearest = _nearest(snapshot.distances.double().cpu().numpy())
    captions = tuple(
        f"{caption}, the nearest other one {gap:.2f} Å away" if len(nearest) > 1 else caption
        for caption, gap in zip(scene.captions, nearest.tolist(), strict=True)
    )
    return Members(
        "Energy and difference", "kcal/mol above the lowest", "heavy-atom RMSD to the nearest, Å", scene.energies,
        nearest, captions,
    )  # fmt: skip


def _groups(snapshot: Shapes, energies: Float[np.ndarray, " n"], alike: float) -> np.ndarray:
    """Return each member's shape, -1 before the end, when distances are not known yet."""
    if not snapshot.distances.numel():
        return np.full(len(energies), -1, dtype=np.int64)
    return groups(snapshot.distances.double().cpu().numpy(), energies, alike).astype(np.int64)


def _said(snapshot: Shapes, shapes: np.ndarray, index: int) -> str:
    return f", shape {shapes[index] + 1}" if snapshot.distances.numel() else ""


def _nearest(distances: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    if len(distances) < 2:
        return np.zeros(len(distances))
    return np.where(np.eye(len(distances), dtype=bool), np.inf, distances).min(axis=1)
