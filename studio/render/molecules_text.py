"""Conformers as text that other programs read: SDF with energies, and XYZ; no word of a person leaves its line."""

__all__ = ["clean", "group_word", "kekulised", "ranked", "sdf_text", "xyz_text"]

import math
import re
import unicodedata

import numpy as np
from jaxtyping import Float, Int

from studio.scenes import Molecules

MOST = 999
DEEPEST = 600
TITLE, VALUE = 80, 2000
TRIES = 20_000
AROMATIC, SDF_AROMATIC = 1.5, 4
# How many bonds an atom without a charge has in a ring that is written with alternating double bonds.
VALENCES = {"B": 3, "C": 4, "N": 3, "O": 2, "Si": 4, "P": 3, "S": 2, "As": 3, "Se": 2, "Te": 2}


def sdf_text(scene: Molecules) -> str:
    """Return the conformers as SDF (V2000), in the order of the scene, with their energies as property fields.

    Bonds of aromatic rings are written as alternating single and double ones where that can be done. Raises
    `ValueError` for more than 999 atoms or bonds, which V2000 cannot number.
    """
    if max(len(scene.symbols), len(scene.bonds)) > MOST:
        raise ValueError(f"SDF V2000 holds at most {MOST} atoms and bonds: export this molecule as XYZ")
    table, charges = _bond_lines(scene), _charge_lines(scene)
    ranks = np.argsort(ranked(scene))
    records = []
    for index, places in enumerate(scene.positions):
        title = clean(f"{clean(scene.title, TITLE - 20)}, conformer {index + 1}", TITLE)
        counts = f"{len(scene.symbols):3d}{len(scene.bonds):3d}  0  0  0  0  0  0  0  0999 V2000"
        atoms = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {_element(symbol):<3} 0  0  0  0  0  0  0  0  0  0  0  0"
            for (x, y, z), symbol in zip(places.tolist(), scene.symbols, strict=True)
        ]
        fields = {
            "ENERGY_KCAL_PER_MOL": f"{float(scene.energies[index]):.6f}",
            "LOWEST_ENERGY_KCAL_PER_MOL": f"{scene.lowest:.6f}",
            "RANK": str(int(ranks[index]) + 1),
            "GROUP": group_word(int(scene.groups[index])),
            "FORCE_FIELD": clean(scene.field, TITLE),
            "SMILES": clean(scene.smiles, VALUE),
        }
        properties = [line for name, value in fields.items() for line in (f"> <{name}>", value or "-", "")]
        head = [title, f"  studio  {'':10}3D", "", counts]
        records += [*head, *atoms, *table, *charges, "M  END", *properties, "$$$$"]
    return "".join(f"{line}\n" for line in records)


def group_word(group: int) -> str:
    """Return the number of a group as people count, a dash where it is not known."""
    return str(group + 1) if group >= 0 else "-"


def xyz_text(scene: Molecules) -> str:
    """Return the conformers as XYZ, one after the other in the order of the scene, in angstrom."""
    lines = []
    for index, places in enumerate(scene.positions):
        energy = f"{float(scene.energies[index]):.6f} kcal/mol above the lowest"
        lines += [str(len(scene.symbols)), clean(f"conformer {index + 1}, {energy}, {scene.field}: {scene.smiles}")]
        lines += [
            f"{_element(symbol):<2} {x:14.6f} {y:14.6f} {z:14.6f}"
            for (x, y, z), symbol in zip(places.tolist(), scene.symbols, strict=True)
        ]
    return "".join(f"{line}\n" for line in lines)


def ranked(scene: Molecules) -> Int[np.ndarray, " n"]:
    """Return the conformers from the lowest energy up; those without a number come last."""
    return np.argsort(np.where(np.isfinite(scene.energies), scene.energies, np.inf), kind="stable")


def clean(text: str, most: int = VALUE) -> str:
    """Return text as a single line of at most `most` characters.

    Nothing that controls, turns or hides text is left in it, nor a mark that ends a record of an SDF.
    """
    kept = (" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text[: 4 * most])
    return re.sub(r"\${2,}", "$", " ".join("".join(kept).split()))[:most].strip()


def kekulised(scene: Molecules) -> Float[np.ndarray, " b"]:
    """Return the orders of the bonds with the aromatic ones as single and double ones.

    They stay 1.5 where no such pattern was found. Hydrogens are taken to be among the atoms.
    """
    orders = scene.orders.astype(float)
    ring = np.flatnonzero(orders == AROMATIC)
    if not len(ring):
        return orders
    wanting = _wanting(scene, orders, ring)
    near: dict[int, dict[int, int]] = {atom: {} for atom in wanting}
    for bond in ring.tolist():
        one, other = scene.bonds[bond].tolist()
        if one in near and other in near:
            near[one][other] = near[other][one] = bond
    pairs = _paired(near)
    if pairs is None:
        return orders
    orders[ring] = 1.0
    orders[pairs] = 2.0
    return orders


def _wanting(scene: Molecules, orders: np.ndarray, ring: np.ndarray) -> list[int]:
    """Return the atoms of aromatic rings that lack one bond when every bond there counts as a single one."""
    total = np.zeros(len(scene.symbols))
    for side in (0, 1):
        np.add.at(total, scene.bonds[:, side], np.where(orders == AROMATIC, 1.0, orders))
    found = []
    for atom in np.unique(scene.bonds[ring]).tolist():
        symbol, charge = scene.symbols[atom], int(scene.charges[atom])
        turned = -abs(charge) if symbol in ("C", "Si") else -charge if symbol == "B" else charge
        if VALENCES.get(symbol, 0) + turned - total[atom] == 1:
            found.append(atom)
    return found


def _paired(near: dict[int, dict[int, int]]) -> list[int] | None:
    """Return bonds that pair every atom with one neighbour, None where there are none or the search takes too long."""
    if len(near) > DEEPEST:
        return None
    free, chosen, tries = set(near), [], iter(range(TRIES))

    def choices(atom: int) -> list[int]:
        return [other for other in near[atom] if other in free]

    def search() -> bool:
        if not free:
            return True
        atom = min(free, key=lambda place: (len(choices(place)), place))
        for other in choices(atom):
            if next(tries, None) is None:
                return False
            free.difference_update((atom, other))
            chosen.append(near[atom][other])
            if search():
                return True
            chosen.pop()
            free.update((atom, other))
        return False

    return chosen if search() else None


def _bond_lines(scene: Molecules) -> list[str]:
    lines = []
    for (one, other), order in zip(scene.bonds.tolist(), kekulised(scene).tolist(), strict=True):
        kind = SDF_AROMATIC if order == AROMATIC else math.ceil(order)
        lines.append(f"{one + 1:3d}{other + 1:3d}{kind:3d}  0")
    return lines


def _charge_lines(scene: Molecules) -> list[str]:
    """Return the formal charges, eight a line."""
    charged = [(atom + 1, charge) for atom, charge in enumerate(scene.charges.tolist()) if charge]
    parts = [charged[start : start + 8] for start in range(0, len(charged), 8)]
    return [f"M  CHG{len(part):3d}{''.join(f'{atom:4d}{charge:4d}' for atom, charge in part)}" for part in parts]


def _element(symbol: str) -> str:
    """Return an element's symbol, a star for what is none."""
    return symbol if re.fullmatch(r"[A-Z][a-z]?", symbol) else "*"
