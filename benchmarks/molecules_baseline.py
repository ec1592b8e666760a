"""The classical way to conformers, the honest baseline: ETKDGv3, MMFF minimisation, clustering by RMSD.

Riniker and Landrum 2015 (J. Chem. Inf. Model. 55, 2562) and Wang et al. 2020 (J. Chem. Inf. Model. 60, 2044) embed;
Halgren 1996 (J. Comput. Chem. 17, 490) is the force field; all three run in RDKit's C++.

Time is the processor's, of all threads of this process together: nothing else may be running in it.
"""

__all__ = ["Ensemble", "Spent", "baseline"]

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from studio.problems.conformer_metrics import distinct, self_rmsd

FIELDS = ("MMFF94s", "MMFF94")
THRESHOLD = 0.5
# More than any conformer was seen to need: those that reach it are counted as not converged.
MOST_ITERATIONS = 20_000
# Wall-clock seconds for one call of the embedder, and for all of a molecule's: some ligands would take it for ever.
CALL = 20
WHOLE = 180
BATCH = 64
# Far enough apart that no two seeds of a benchmark draw the same conformer, and small enough for RDKit's integers.
STRIDE = 1_000_000
SEEDS = 2000
TINY = 1e-9


@dataclass(frozen=True)
class Spent:
    """Processor seconds of the three parts."""

    embed: float
    minimise: float
    cluster: float

    @property
    def total(self) -> float:
        """Return the sum of the parts."""
        return self.embed + self.minimise + self.cluster


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Every minimised conformer by rising energy in kcal/mol, and what they cost.

    `kept` are the indices of the clusters' lowest conformers, each at least `THRESHOLD` angstrom from the ones before.
    `tried` conformers were asked of the embedder, `unconverged` were still moving when the minimiser gave up.
    """

    positions: Float64[np.ndarray, "n a 3"]
    energies: Float64[np.ndarray, " n"]
    kept: Int64[np.ndarray, " k"]
    cpu_seconds: Spent
    tried: int
    unconverged: int

    def minima(self, window: float) -> Int64[np.ndarray, " j"]:
        """Return the kept conformers at most `window` kcal/mol above the lowest."""
        return self.kept[self.energies[self.kept] <= self.energies.min(initial=np.inf) + window]


def baseline(
    mol: Chem.Mol,
    n: int,
    seed: int,
    *,
    field: str = "MMFF94s",
    threads: int = 1,
    seconds: float | None = None,
) -> Ensemble:
    """Return at most n conformers of a molecule with hydrogens, embedded, minimised and clustered.

    Embedding and minimising take turns in growing batches. With `seconds` they go on until that many processor seconds
    are used up or n conformers were tried; the last batch is cut to fit, and clustering comes on top. Without it they
    stop at n, or after `WHOLE` seconds of embedding. A batch the embedder cannot finish in `CALL` seconds is lost, so
    fewer than n conformers may come back, down to none. Conformer i of a seed is the same in batches of any size.

    Raises `ValueError` where the force field has no type for an atom, or an argument is out of bounds.
    """
    _check(n, seed, field, threads, seconds)
    if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        raise ValueError(f"{field} has no type for some atom of this molecule: leave it out and say so")
    left, limit = (np.inf, WHOLE) if seconds is None else (seconds, np.inf)
    rounds: list[_Round] = []
    tried, size = 0, threads
    while tried < n and left > 0 and sum(one.waited for one in rounds) < limit:
        size = min(size, n - tried)
        rounds.append(_round(mol, size, seed * STRIDE + tried, field, threads))
        tried += size
        spent = sum(one.embed + one.minimise for one in rounds)
        left = np.inf if seconds is None else seconds - spent
        size = min(2 * size, BATCH) if rounds[-1].waited < CALL / 8 else size // 2
        size = int(max(1, min(size, left / max(spent, TINY) * tried)))
    return _ensemble(mol, rounds, tried)


def _check(n: int, seed: int, field: str, threads: int, seconds: float | None) -> None:
    if field not in FIELDS:
        raise ValueError(f"field must be one of {', '.join(FIELDS)}, got {field!r}")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed must be between 0 and {SEEDS - 1:,}, got {seed}")
    if not 1 <= n <= STRIDE or threads < 1:
        raise ValueError(f"n must be between 1 and {STRIDE:,} and threads at least 1, got {n} and {threads}")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}: leave it out for no limit")


@dataclass(frozen=True, eq=False)
class _Round:
    """The conformers of one call of the embedder, its processor and wall-clock seconds, and the minimiser's."""

    positions: Float64[np.ndarray, "n a 3"]
    energies: Float64[np.ndarray, " n"]
    unconverged: int
    embed: float
    minimise: float
    waited: float


def _round(mol: Chem.Mol, count: int, seed: int, field: str, threads: int) -> _Round:
    """Return conformers of consecutive seeds, minimised; none where the embedder runs out of time."""
    parameters = rdDistGeom.ETKDGv3()
    # RDKit's seed 0 gives the same conformer again and again.
    parameters.randomSeed = seed + 1
    parameters.enableSequentialRandomSeeds = True
    parameters.numThreads = threads
    parameters.timeout = CALL
    copy = Chem.Mol(mol)
    began, wall = time.process_time(), time.monotonic()
    rdDistGeom.EmbedMultipleConfs(copy, count, parameters)
    embedded, waited = time.process_time(), time.monotonic() - wall
    # The minimiser refuses a molecule without conformers.
    found = copy.GetNumConformers() > 0
    ended = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(copy, threads, MOST_ITERATIONS, field) if found else []
    minimised = time.process_time()
    return _Round(
        positions=np.array([c.GetPositions() for c in copy.GetConformers()]).reshape(-1, mol.GetNumAtoms(), 3),
        energies=np.array([energy for _, energy in ended], dtype=np.float64),
        unconverged=sum(flag != 0 for flag, _ in ended),
        embed=embedded - began,
        minimise=minimised - embedded,
        waited=waited,
    )


def _ensemble(mol: Chem.Mol, rounds: list[_Round], tried: int) -> Ensemble:
    """Return the conformers of all rounds in order of energy, clustered."""
    began = time.process_time()
    energies = np.concatenate([one.energies for one in rounds])
    order = np.argsort(energies, kind="stable")
    energies, positions = energies[order], np.concatenate([one.positions for one in rounds])[order]
    kept = distinct(self_rmsd(mol, positions), energies, THRESHOLD, np.inf)
    cluster = time.process_time() - began
    spent = Spent(sum(one.embed for one in rounds), sum(one.minimise for one in rounds), cluster)
    return Ensemble(positions, energies, kept, spent, tried, sum(one.unconverged for one in rounds))
