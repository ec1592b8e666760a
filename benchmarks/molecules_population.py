"""Conformers against RDKit: how many distinct low minima, how near to reference shapes, for how many processor seconds.

For every molecule and seed, in one process and one after the other:

    rdkit    ETKDGv3, MMFF94s minimisation and RMSD clustering of n conformers
    ours     the study `conformers` at its defaults, n members: as many conformers
    budget   rdkit again, but for as many processor seconds as `ours` took: equal time

A minimum is distinct 0.5 angstrom (heavy-atom RMSD, symmetries seen) from every lower one, and low within 6 kcal/mol of
the lowest energy that any of the three found. Ours is charged for RDKit's child process, too.
"""

__all__ = ["collapsed", "population"]

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem

from benchmarks.molecules_baseline import baseline
from benchmarks.molecules_data import Molecule, bioactive, dft
from studio.core.runs import last
from studio.methods.conformer_search import Search, conformer_search
from studio.problems.chemist import Chemist
from studio.problems.chemistry import rdkit_mol
from studio.problems.conformer_metrics import (
    CONFGF_DRUGS,
    CONFGF_QM9,
    GEOMOL_DRUGS,
    cross_rmsd,
    distinct,
    scores,
    self_rmsd,
)
from studio.problems.molecule_shapes import MoleculeShapes, molecule_shapes

FIELD = "MMFF94s"
ALIKE, WINDOW = 0.5, 6.0
BIOACTIVE = 30
PATIENCE = 60.0
KEPT = Path(".work/molecules")
PROTOCOLS = {"drugs_1.25": CONFGF_DRUGS, "0.5": CONFGF_QM9, "strict_0.75": GEOMOL_DRUGS}
BOOTSTRAPS = 10_000


@dataclass(frozen=True, eq=False)
class Found:
    """One ensemble: positions and energies of every conformer, and the processor seconds it took."""

    positions: np.ndarray
    energies: np.ndarray
    seconds: float


def population(folder: Path, seeds: int, share: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    """Return the comparison over the quick tiers; `share` (i, k) works on every k-th case only, and only keeps it."""
    cases = list(_cases(folder, seeds))
    done = _kept()
    with Chemist() as chemist:
        for number, (kind, known, seed) in enumerate(cases):
            key = f"{kind}/{known.name}/{seed}"
            if number % share[1] == share[0] and key not in done:
                done[key] = _case(kind, known, seed, chemist)
                _keep(share[0], key, done[key])
                print(f"{number + 1}/{len(cases)} {key}: {json.dumps(done[key])[:300]}", flush=True)
    return _summary(_kept(), cases) if share[1] == 1 else {}


def collapsed(folder: Path, count: int = 24, members: int = 16) -> dict[str, Any]:
    """Return check F31: all members from one geometry shaken by 0.1 angstrom, for each method."""
    rows: dict[str, list[tuple[int, float, float]]] = {}
    flexible = [known for known in bioactive(folder) if 5 <= known.rotatable <= 12]
    chosen = flexible[:: max(1, len(flexible) // count)][:count]
    with Chemist() as chemist:
        for known in chosen:
            problem = molecule_shapes(
                known.smiles, FIELD, 0, chemist, max_heavy=150, seconds=PATIENCE, device="cpu"
            )  # fmt: skip
            for method in ("plain", "sum", "max", "linear", "ceiling"):
                final = last(conformer_search(problem, Search(members=members, start="one", method=method), 0))
                energies = final.energies.numpy()
                kept = distinct(final.distances.numpy(), energies, 0.3, np.inf)
                gaps = final.distances + torch.diag(torch.full((members,), torch.inf, dtype=final.distances.dtype))
                rows.setdefault(method, []).append((len(kept), energies.mean(), gaps.amin(dim=1).mean().item()))
            print(known.name, {method: row[-1] for method, row in rows.items()}, flush=True)
    plain = np.array(rows["plain"])
    found: dict[str, Any] = {"collapsed_molecules": len(chosen), "collapsed_members": members}
    for method, row in rows.items():
        values = np.array(row)
        found[f"collapsed_distinct_median_{method}"] = float(np.median(values[:, 0]))
        found[f"collapsed_energy_above_plain_median_{method}"] = float(np.median(values[:, 1] - plain[:, 1]))
        found[f"collapsed_energy_above_plain_mean_{method}"] = float((values[:, 1] - plain[:, 1]).mean())
    found["collapsed_distinct_median"] = found["collapsed_distinct_median_ceiling"]
    return found


def _cases(folder: Path, seeds: int) -> Iterator[tuple[str, Molecule, int]]:
    sets = {"bioactive": bioactive(folder), "dft": dft(folder)}
    for seed in range(seeds):
        for kind, molecules in sets.items():
            for known in molecules:
                yield kind, known, seed


def _case(kind: str, known: Molecule, seed: int, chemist: Chemist) -> dict[str, Any]:
    """Return the figures of one molecule and seed, or the sentence that says why there are none."""
    n = BIOACTIVE if kind == "bioactive" else 2 * len(known.references)
    try:
        problem = molecule_shapes(
            known.smiles, FIELD, seed, chemist, max_heavy=150, seconds=PATIENCE, device="cpu"
        )  # fmt: skip
        mol = rdkit_mol(problem.molecule)
        references = _in_order(known, mol)
        _warm(problem)
        ours = _ours(problem, n, seed, chemist)
        theirs = _rdkit(mol, n, seed, None)
        timed = _rdkit(mol, 100_000, seed, ours.seconds)
    except (ValueError, RuntimeError) as error:
        return {"failed": str(error)}
    found = {"rdkit": theirs, "ours": ours, "budget": timed}
    lowest = min(part.energies.min() for part in found.values())
    return {name: _figures(mol, part, references, lowest) for name, part in found.items()} | {
        "atoms": mol.GetNumAtoms(), "rotors": problem.turning, "wanted": n,
    }  # fmt: skip


def _in_order(known: Molecule, mol: Chem.Mol) -> np.ndarray:
    """Return the references in the order of another copy of the molecule; its hydrogens, which do not count, at 0."""
    heavy, theirs = Chem.RemoveAllHs(mol), Chem.RemoveAllHs(known.mol)
    order = theirs.GetSubstructMatch(heavy)
    if len(order) < heavy.GetNumAtoms():
        raise ValueError("the reference is another molecule")
    places = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    sources = [atom.GetIdx() for atom in known.mol.GetAtoms() if atom.GetAtomicNum() > 1]
    found = np.zeros((len(known.references), mol.GetNumAtoms(), 3))
    found[:, places] = known.references[:, [sources[place] for place in order]]
    return found


def _warm(problem: MoleculeShapes) -> None:
    """Compile and type once before any clock runs."""
    geometry = problem.embedded(0, 1)
    problem.objective(geometry.reshape(1, -1))
    problem.curvature(geometry.reshape(1, -1))


def _ours(problem: MoleculeShapes, n: int, seed: int, chemist: Chemist) -> Found:
    began = time.process_time() + chemist.cpu_seconds
    final = last(conformer_search(problem, Search(members=n), seed))
    spent = time.process_time() + chemist.cpu_seconds - began
    return Found(final.positions.numpy(), final.energies.numpy(), spent)


def _rdkit(mol: Chem.Mol, n: int, seed: int, seconds: float | None) -> Found:
    found = baseline(mol, n, seed, field=FIELD, seconds=seconds)
    return Found(found.positions, found.energies, found.cpu_seconds.total)


def _figures(mol: Chem.Mol, found: Found, references: np.ndarray, lowest: float) -> dict[str, float]:
    own = self_rmsd(mol, found.positions)
    low = found.energies <= lowest + WINDOW
    kept = distinct(own[np.ix_(low, low)], found.energies[low], ALIKE, np.inf) if low.any() else []
    table = cross_rmsd(mol, references, found.positions)
    figures = {
        "conformers": len(found.energies), "seconds": found.seconds, "minima": len(kept),
        "above_lowest": float(found.energies.min() - lowest), "nearest": float(table.min()),
    }  # fmt: skip
    for name, protocol in PROTOCOLS.items():
        part = scores(table, protocol.threshold, protocol.strict)
        figures |= {f"cov_r_{name}": part.cov_r, f"cov_p_{name}": part.cov_p}
        figures |= {"mat_r": part.mat_r, "mat_p": part.mat_p}
    return figures


def _summary(kept: dict[str, Any], cases: list[tuple[str, Molecule, int]]) -> dict[str, Any]:
    rows = [kept[key] for kind, known, seed in cases if (key := f"{kind}/{known.name}/{seed}") in kept]
    kinds = [kind for kind, known, seed in cases if f"{kind}/{known.name}/{seed}" in kept]
    names = [known.name for kind, known, seed in cases if f"{kind}/{known.name}/{seed}" in kept]
    whole = [(row, kind, name) for row, kind, name in zip(rows, kinds, names, strict=True) if "failed" not in row]
    found: dict[str, Any] = {
        "population_cases": len(whole), "population_failed": len(rows) - len(whole),
        "population_molecules": len({name for _, _, name in whole}),
    }  # fmt: skip
    for kind in ("bioactive", "dft"):
        found |= _compared(kind, [(row, name) for row, which, name in whole if which == kind])
    both = [(row, name) for row, _, name in whole]
    ratio, low, high = _ratio(both, "rdkit")
    found |= {
        "distinct_minima_per_cpu_second_ratio": ratio,
        "distinct_minima_per_cpu_second_interval": [low, high],
        "cov_r_difference_points": found["dft_cov_r_drugs_1.25_difference"][0],
    }
    return found


def _compared(kind: str, rows: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
    """Return means of each way and the differences ours - theirs with 95 % bootstrap intervals over molecules."""
    found: dict[str, Any] = {}
    scale = dict.fromkeys((f"{part}_{protocol}" for part in ("cov_r", "cov_p") for protocol in PROTOCOLS), 100.0)
    for name in ("minima", "seconds", "conformers", "nearest", "above_lowest", "mat_r", "mat_p", *scale):
        by = {
            way: _means([(row[way][name] * scale.get(name, 1.0), who) for row, who in rows])
            for way in ("rdkit", "ours", "budget")
        }
        for way, values in by.items():
            found[f"{kind}_{name}_{way}"] = float(values.mean())
        found[f"{kind}_{name}_difference"] = _interval(by["ours"] - by["rdkit"])
        found[f"{kind}_{name}_difference_equal_time"] = _interval(by["ours"] - by["budget"])
    for way in ("rdkit", "budget"):
        found[f"{kind}_minima_per_second_ratio_{way}"] = list(_ratio(rows, way))
    return found


def _means(values: list[tuple[float, str]]) -> np.ndarray:
    """Return each molecule's mean over its seeds, in the order of the names."""
    names = sorted({name for _, name in values})
    return np.array([np.mean([value for value, which in values if which == name]) for name in names])


def _interval(differences: np.ndarray) -> list[float]:
    draws = np.random.default_rng(0).integers(len(differences), size=(BOOTSTRAPS, len(differences)))
    low, high = np.percentile(differences[draws].mean(axis=1), (2.5, 97.5))
    return [float(differences.mean()), float(low), float(high)]


def _ratio(rows: list[tuple[dict[str, Any], str]], way: str) -> tuple[float, float, float]:
    """Return minima per second of ours over another way's, all minima by all seconds, with a bootstrap interval."""
    parts = np.array([
        _means([(row[which][name], who) for row, who in rows])
        for which in ("ours", way) for name in ("minima", "seconds")
    ])  # fmt: skip
    draws = np.random.default_rng(0).integers(parts.shape[1], size=(BOOTSTRAPS, parts.shape[1]))
    sums = parts[:, draws].sum(axis=2)
    ratios = (sums[0] / sums[1]) / (sums[2] / sums[3])
    whole = parts.sum(axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float((whole[0] / whole[1]) / (whole[2] / whole[3])), float(low), float(high)


def _kept() -> dict[str, Any]:
    """Return the cases measured so far, of all shares."""
    found: dict[str, Any] = {}
    for path in sorted(KEPT.glob("population-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["key"]] = row["value"]
    return found


def _keep(share: int, key: str, value: dict[str, Any]) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"population-{share}.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"key": key, "value": value}) + "\n")
