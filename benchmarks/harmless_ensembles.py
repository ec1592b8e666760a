"""Ensembles under harmless diversity against independent members, the weighted sum and a control that must fail.

Every arm trains the same networks, from the same starts and on the same batches, on each seed's own split of the data;
what is compared is paired by seed. A run that was stopped goes on from its scratch file.
"""

__all__ = ["SEEDS", "ensembles"]

import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch

from studio.core.runs import last
from studio.core.seeds import generator_from
from studio.methods.ensemble import EnsembleConfig, ensemble
from studio.problems.classification import classification
from studio.problems.digits import labelled

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ROOT / ".work" / "harmless_ensembles.json"
SOURCES = (
    "methods/ensemble.py", "methods/harmless_adam.py", "methods/harmless.py", "methods/diversity.py",
    "methods/calibration.py", "problems/classification.py", "problems/digits.py", "nets/mlp.py",
)  # fmt: skip
SEEDS = 5
HIDDEN = (64, 64)
BATCH = 100
WRONG = 0.1
EXAMPLES = {"digits": 400, "fashion-mnist": 1000}
ARMS: dict[str, dict] = {
    "plain": {"method": "plain"},
    "point": {},
    "sum": {"method": "sum"},
    "max": {"method": "max"},
    "reach_2": {"reach": 2.0},
    "softmax": {"features": "softmax"},
    "linear_0.01": {"method": "linear", "weight": 0.01},
    "linear_0.1": {"method": "linear", "weight": 0.1},
    "linear_1": {"method": "linear", "weight": 1.0},
    "control": {"noise": 0.5},
}
COST_ROUNDS = 15


@dataclass(frozen=True)
class Job:
    """One arm on one data set and seed."""

    data: str
    arm: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """Return the key of the job in the scratch file."""
        return f"{self.data}/{self.arm}/{self.seed}/{self.steps}"


def ensembles(
    data: Path | None, seeds: int = SEEDS, steps: int = EnsembleConfig.steps, workers: int | None = None
) -> dict[str, object]:
    """Return the figures of all arms; without `data`, the folder of Fashion-MNIST, those of digits alone."""
    if data is not None:
        os.environ["STUDIO_DATA"] = str(data)
    sets = ("digits", "fashion-mnist") if data is not None else ("digits",)
    jobs = [Job(name, arm, seed, steps) for name in sets for seed in range(seeds) for arm in ARMS]
    key = sha256(b"".join((ROOT / "studio" / name).read_bytes() for name in SOURCES)).hexdigest()
    key += json.dumps([ARMS, EXAMPLES, HIDDEN, BATCH, WRONG])
    done = _done(key)
    began = time.monotonic()
    with ProcessPoolExecutor(workers or os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_scores, job): job for job in jobs if job.name not in done}
        for future in as_completed(running):
            name = running[future].name
            done[name] = future.result()
            _write({"key": key, "done": done})
            row = done[name]
            print(
                f"{time.monotonic() - began:6.0f} s  {name:32} loss {row['train_loss']:.4f}  "
                f"right {row['accuracy']:.2%}  differ {row['disagreement']:.2%}  noise {row['noise_accuracy']:.2%}",
                flush=True,
            )
    figures: dict[str, object] = {
        "ensemble_settings": {
            "examples": {name: EXAMPLES[name] for name in sets}, "hidden": HIDDEN, "batch": BATCH,
            "wrong_labels": WRONG, "steps": steps, "members": EnsembleConfig.members, "rate": EnsembleConfig.rate,
            "arms": ARMS,
        }
    }  # fmt: skip
    for name in sets:
        rows = {arm: [done[Job(name, arm, seed, steps).name] for seed in range(seeds)] for arm in ARMS}
        figures |= _figures("fashion" if name == "fashion-mnist" else name, rows)
    return figures | _costs()


def _scores(job: Job) -> dict[str, float]:
    """Return the scores of one arm on one data set and seed, and the seconds it took."""
    torch.set_num_threads(1)
    problem = classification(labelled(job.data), job.seed, EXAMPLES[job.data], WRONG, HIDDEN, BATCH)
    config = EnsembleConfig(steps=job.steps, **ARMS[job.arm])
    began = time.monotonic()
    end = last(ensemble(problem, config, generator_from(job.seed, "ensemble")))
    if end.scores is None:
        raise ValueError(f"{job.name} ended without scores")
    return asdict(end.scores) | {"reach": end.reach.mean().item(), "seconds": time.monotonic() - began}


def _figures(name: str, rows: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Return every score of every arm with its standard error, and the gaps to the plain arm paired by seed."""
    figures: dict[str, object] = {}
    plain = rows["plain"]
    for arm, found in rows.items():
        for score in found[0]:
            if score != "seconds":
                figures |= _mean(f"{name}_{arm}_{score}", [row[score] for row in found])
        if arm == "plain":
            continue
        pairs = list(zip(found, plain, strict=True))
        start = f"{name}_" if arm == "point" else f"{name}_{arm}_"
        gaps = {
            "accuracy_gap_points": [100 * (own["accuracy"] - base["accuracy"]) for own, base in pairs],
            "disagreement_ratio": [own["disagreement"] / base["disagreement"] for own, base in pairs],
            "train_ce_gap": [own["train_loss"] - base["train_loss"] for own, base in pairs],
            "noise_accuracy_gap_points": [
                100 * (own["noise_accuracy"] - base["noise_accuracy"]) for own, base in pairs
            ],
            "nll_gap": [own["nll"] - base["nll"] for own, base in pairs],
            "ece_gap_points": [100 * (own["ece"] - base["ece"]) for own, base in pairs],
            "foreign_auroc_gap": [own["foreign_auroc"] - base["foreign_auroc"] for own, base in pairs],
        }
        for gap, values in gaps.items():
            figures |= _mean(f"{start}{gap}", values)
    return figures


def _mean(name: str, values: list[float]) -> dict[str, object]:
    """Return the mean of the seeds and its standard error under two names."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {name: round(statistics.mean(values), 5), f"{name}_se": round(error, 5)}


def _costs() -> dict[str, object]:
    """Return how much longer a step of each method takes than a plain one, measured in turns in one process."""
    torch.set_num_threads(1)
    problem = classification(labelled("digits"), 0, EXAMPLES["digits"], WRONG, HIDDEN, BATCH)
    methods = ("plain", "point", "sum", "max", "linear")
    runs = {
        method: ensemble(problem, EnsembleConfig(steps=10**6, measures=1, method=method), generator_from(0, method))
        for method in methods
    }
    spent: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(COST_ROUNDS):
        for method, run in runs.items():
            began = time.perf_counter()
            for _ in range(20):
                next(run)
            spent[method].append(time.perf_counter() - began)
    plain = statistics.median(spent["plain"])
    return {f"ensemble_cost_{m}_over_plain": round(statistics.median(v) / plain, 3) for m, v in spent.items()}


def _done(key: str) -> dict[str, dict[str, float]]:
    """Return what an earlier run of the same code and settings finished."""
    if not SCRATCH.is_file():
        return {}
    record = json.loads(SCRATCH.read_text(encoding="utf-8"))
    return record["done"] if record["key"] == key else {}


def _write(record: dict) -> None:
    SCRATCH.parent.mkdir(parents=True, exist_ok=True)
    SCRATCH.with_suffix(".part").write_text(json.dumps(record), encoding="utf-8")
    SCRATCH.with_suffix(".part").replace(SCRATCH)
