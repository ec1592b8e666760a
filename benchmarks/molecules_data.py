"""Molecules with reference conformers, read from a folder that is named on the command line and never shipped.

The folder holds, each packed with gzip, hydrogens explicit and coordinates in angstrom:

    bioactive.sdf.gz, bioactive_index.csv           drug-like ligands, one protein-bound shape each
    dft_conformers.sdf.gz, dft_conformers_index.csv up to ten DFT-optimised conformers a molecule, with energies
    geom_drugs_test_smiles.csv, geom_qm9_test_smiles.csv    the GEOM test molecules of GeoMol, without coordinates

Each index says, a molecule, its `id`, its `tier` ("quick" is the daily benchmark) and how flexible it is.
"""

__all__ = ["GEOM_SETS", "METHODS", "SETS", "TIERS", "GeomSmiles", "Molecule", "bioactive", "dft", "geom", "missing"]

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from rdkit import Chem

TIERS = ("quick", "full")
SETS = {
    "bioactive": ("bioactive.sdf.gz", "bioactive_index.csv"),
    "dft": ("dft_conformers.sdf.gz", "dft_conformers_index.csv"),
}
GEOM_SETS = {"drugs": "geom_drugs_test_smiles.csv", "qm9": "geom_qm9_test_smiles.csv"}
METHODS = ("DLPNO", "WB97XD", "GFN2", "MMFF94")


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule and its reference conformers in the atom order of `mol`, which has hydrogens and no conformer.

    `energies` are those of the references in kcal/mol above the molecule's lowest, nan where the source has none.
    `rotatable` counts the rotatable bonds as RDKit does, strictly.
    """

    name: str
    smiles: str
    tier: str
    rotatable: int
    mol: Chem.Mol
    references: Float64[np.ndarray, "k a 3"]
    energies: Float64[np.ndarray, " k"]


@dataclass(frozen=True)
class GeomSmiles:
    """A GEOM test molecule as GeoMol corrected it, and how many reference conformers GEOM has of it."""

    smiles: str
    conformers: int


def bioactive(folder: Path, tier: str = "quick") -> list[Molecule]:
    """Return the ligands of a tier ("full" is all of them), each with its one protein-bound shape.

    Raises `ValueError` that says what is missing.
    """
    return _molecules(folder, "bioactive", tier, "_Name", "")


def dft(folder: Path, tier: str = "quick", method: str = "DLPNO") -> list[Molecule]:
    """Return the molecules of a tier ("full" is all of them) with their DFT conformers and energies by a method.

    Raises `ValueError` that says what is missing.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return _molecules(folder, "dft", tier, "MOL_ID", f"REL_E_{method}")


def geom(folder: Path, name: str) -> list[GeomSmiles]:
    """Return the molecules of the GEOM test set `name`, "drugs" or "qm9".

    Raises `ValueError` that says what is missing.
    """
    if name not in GEOM_SETS:
        raise ValueError(f"the GEOM set must be one of {', '.join(GEOM_SETS)}, got {name!r}")
    _require(folder, (GEOM_SETS[name],))
    with (folder / GEOM_SETS[name]).open(encoding="utf-8", newline="") as file:
        return [GeomSmiles(row["corrected_smiles"], int(row["n_conformers"])) for row in csv.DictReader(file)]


def missing(folder: Path | None, names: tuple[str, ...]) -> str:
    """Return a sentence that says which of the files are missing from the folder, empty where none is."""
    if folder is None:
        return f"name the folder that holds {', '.join(names)} with --data"
    absent = [name for name in names if not (folder / name).is_file()]
    return f"{', '.join(absent)} not found in {folder}: name the folder that holds them with --data" if absent else ""


def _require(folder: Path, names: tuple[str, ...]) -> None:
    if text := missing(folder, names):
        raise ValueError(text)


def _molecules(folder: Path, name: str, tier: str, key: str, energy: str) -> list[Molecule]:
    """Return the molecules of a set in the order of its file."""
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    _require(folder, SETS[name])
    records, index = SETS[name]
    with (folder / index).open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file) if tier == "full" or row["tier"] == tier}
    grouped = groupby(_records(folder / records), lambda record: record.GetProp(key))
    found = [_molecule(rows[own], list(group), energy) for own, group in grouped if own in rows]
    if len(found) != len(rows):
        raise ValueError(f"{index} lists {len(rows):,} molecules and {records} holds {len(found):,}: fetch both again")
    return found


def _records(path: Path) -> Iterator[Chem.Mol]:
    """Yield the records of a packed SDF file with their hydrogens."""
    with gzip.open(path) as file:
        for place, record in enumerate(Chem.ForwardSDMolSupplier(file, removeHs=False)):
            if record is None:
                raise ValueError(f"record {place} of {path.name} cannot be read: fetch the file again")
            yield record


def _molecule(row: dict[str, str], records: list[Chem.Mol], energy: str) -> Molecule:
    first = records[0]
    if any(_graph(record) != _graph(first) for record in records):
        raise ValueError(f"the conformers of {row['id']} do not share one atom order: fetch the file again")
    mol = Chem.Mol(first)
    mol.RemoveAllConformers()
    return Molecule(
        name=row["id"],
        smiles=row["smiles"],
        tier=row["tier"],
        rotatable=int(row["n_rot"]),
        mol=mol,
        references=np.array([record.GetConformer().GetPositions() for record in records]),
        energies=np.array([float(r.GetProp(energy)) if r.HasProp(energy) else np.nan for r in records]),
    )


def _graph(mol: Chem.Mol) -> tuple[list[int], set[frozenset[int]]]:
    """Return the elements of the atoms in order, and which are bonded."""
    bonds = {frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in mol.GetBonds()}
    return [atom.GetAtomicNum() for atom in mol.GetAtoms()], bonds
