"""MMFF94 against RDKit's: the same energies and gradients for every molecule there is, and how many a second."""

__all__ = ["parity", "throughput"]

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.Chem import rdForceFieldHelpers as helpers

from benchmarks.molecules_data import bioactive, dft, geom
from studio.problems.mmff import MMFF
from studio.problems.mmff_terms import VARIANTS, mmff_terms

NOISE = 0.05
CONFORMERS = 3
PATIENCE = 5
# 60 atoms, 30 of them heavy: a tripeptide.
SIXTY = "CC(C)C(NC(=O)C(Cc1ccccc1)NC(=O)C(C)NC(=O)OC)C(=O)NCC#N"
BATCHES = (1, 64, 1024)
GPU_BATCH = 16_000
ROUNDS = 9


def parity(folder: Path) -> dict[str, Any]:
    """Return the largest differences in energy and gradient, a set and a variant, over every molecule MMFF can type.

    Three geometries a molecule: its reference conformer, or one that ETKDGv3 embeds where there is none, about its
    centre, with normal noise of 0.05 angstrom. RDKit's `CalcGrad(positions)` takes distances from the last
    `CalcEnergy`, so that each gradient is asked for right after the energy of the same geometry.
    """
    rows: dict[str, Any] = {}
    for name, molecules in _sets(folder):
        for variant in VARIANTS:
            rows[f"{name} {variant}"] = {
                "molecules": 0, "not_typed": 0, "not_embedded": 0, "largest_energy": 0.0, "energy_error_kcal": 0.0,
                "gradient_error": 0.0, "energy_error_float32_kcal": 0.0,
            }  # fmt: skip
        for number, mol in enumerate(molecules()):
            for variant in VARIANTS:
                _compare(rows[f"{name} {variant}"], mol, variant, number)
        print(name, rows[f"{name} {VARIANTS[0]}"], flush=True)
    return {
        "mmff_table": rows,
        "mmff_molecules": sum(row["molecules"] for key, row in rows.items() if key.endswith(f" {VARIANTS[0]}")),
        "mmff_max_energy_error_kcal": max(row["energy_error_kcal"] for row in rows.values()),
        "mmff_max_gradient_error": max(row["gradient_error"] for row in rows.values()),
        "mmff_max_energy_error_float32_kcal": max(row["energy_error_float32_kcal"] for row in rows.values()),
    }


def throughput() -> dict[str, Any]:
    """Return energies with gradients a processor second, ours over RDKit's Python loop, in pairs taken in turn."""
    mol = Chem.AddHs(Chem.MolFromSmiles(SIXTY))
    rdDistGeom.EmbedMultipleConfs(mol, 32, randomSeed=7)
    positions = np.stack([conformer.GetPositions() for conformer in mol.GetConformers()])
    field = MMFF((mmff_terms(mol),))
    theirs = helpers.MMFFGetMoleculeForceField(mol, helpers.MMFFGetMoleculeProperties(mol, "MMFF94s"))
    flat = [geometry.ravel().tolist() for geometry in positions]
    found: dict[str, Any] = {"evals_atoms": mol.GetNumAtoms(), "evals_pairs": len(field.molecules[0].pairs)}

    def rdkit_loop() -> int:
        for geometry in flat:
            theirs.CalcEnergy(geometry)
            theirs.CalcGrad(geometry)
        return len(flat)

    for batch in BATCHES:
        many = torch.from_numpy(np.tile(positions, (batch // len(positions) + 1, 1, 1))[:batch].copy())
        rates = [(_rate(lambda many=many: _evaluated(field, many)), _rate(rdkit_loop)) for _ in range(ROUNDS)]
        found[f"evals_per_second_{batch}"] = statistics.median(ours for ours, _ in rates)
        found[f"evals_ratio_to_rdkit_{batch}"] = statistics.median(ours / other for ours, other in rates)
        found[f"evals_ratio_to_rdkit_{batch}_quartiles"] = statistics.quantiles([a / b for a, b in rates], n=4)[::2]
        found["evals_per_second_rdkit"] = statistics.median(other for _, other in rates)
    tensors, many = field.tensor_terms(torch.zeros(1, dtype=torch.float64)), torch.from_numpy(positions)
    found["evals_ratio_tensors_to_rdkit_32"] = statistics.median(
        _rate(lambda: len(tensors.with_gradients(many)[0])) / _rate(rdkit_loop) for _ in range(ROUNDS)
    )
    return found | (_on_gpu(field, positions) if torch.cuda.is_available() else {})


def _sets(folder: Path) -> Iterator[tuple[str, Callable[[], Iterator[Chem.Mol]]]]:
    yield "bioactive", lambda: (_placed(known.mol, known.references[0]) for known in bioactive(folder, "full"))
    yield "dft", lambda: (_placed(known.mol, known.references[0]) for known in dft(folder, "full"))
    for name in ("drugs", "qm9"):
        yield f"geom_{name}", lambda name=name: (_hydrogens(row.smiles) for row in geom(folder, name))


def _placed(mol: Chem.Mol, positions: np.ndarray) -> Chem.Mol:
    found = Chem.Mol(mol)
    conformer = Chem.Conformer(found.GetNumAtoms())
    conformer.SetPositions(np.ascontiguousarray(positions))
    found.AddConformer(conformer)
    return found


def _hydrogens(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def _compare(row: dict[str, Any], mol: Chem.Mol, variant: str, number: int) -> None:
    if not mol.GetNumConformers():
        options = rdDistGeom.ETKDGv3()
        options.randomSeed, options.timeout = 7, PATIENCE
        if rdDistGeom.EmbedMolecule(mol, options) < 0:
            row["not_embedded"] += 1
            return
    # Typing marks a molecule, and typing it again may come out differently: each side has a copy of its own.
    theirs = Chem.Mol(mol)
    properties = helpers.MMFFGetMoleculeProperties(theirs, mmffVariant=variant)
    if properties is None:
        row["not_typed"] += 1
        return
    generator = np.random.default_rng(number)
    geometry = mol.GetConformer().GetPositions()
    geometry = geometry - geometry.mean(axis=0)
    noisy = geometry + NOISE * generator.standard_normal((CONFORMERS, *geometry.shape))
    reference = helpers.MMFFGetMoleculeForceField(theirs, properties, 1e6)
    field, positions = MMFF((mmff_terms(mol, variant),)), torch.from_numpy(noisy)
    energies, gradients = field.with_gradients(positions)
    single, _ = field.tensor_terms(positions.float()).with_gradients(positions.float())
    for index, flat in enumerate(geometry.ravel().tolist() for geometry in noisy):
        energy, slope = reference.CalcEnergy(flat), np.array(reference.CalcGrad(flat)).reshape(-1, 3)
        row["largest_energy"] = max(row["largest_energy"], abs(energy))
        row["energy_error_kcal"] = max(row["energy_error_kcal"], abs(energies[index, 0].item() - energy))
        row["gradient_error"] = max(row["gradient_error"], float(np.abs(gradients[index].numpy() - slope).max()))
        row["energy_error_float32_kcal"] = max(row["energy_error_float32_kcal"], abs(single[index, 0].item() - energy))
    row["molecules"] += 1


def _evaluated(field: MMFF, positions: torch.Tensor) -> int:
    return len(field.with_gradients(positions)[0])


def _rate(work: Callable[[], int], least: float = 0.3) -> float:
    """Return what `work` counts, a processor second."""
    work()
    began, count = time.process_time(), 0
    while (spent := time.process_time() - began) < least:
        count += work()
    return count / spent


def _on_gpu(field: MMFF, positions: np.ndarray) -> dict[str, Any]:
    found = {}
    for kind, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        many = torch.from_numpy(np.tile(positions, (GPU_BATCH // len(positions), 1, 1))).to("cuda", dtype)
        field.with_gradients(many)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(ROUNDS):
            field.with_gradients(many)
        torch.cuda.synchronize()
        found[f"evals_per_second_gpu_{kind}"] = ROUNDS * len(many) / (time.perf_counter() - began)
    return found
