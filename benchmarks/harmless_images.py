"""Diverse pictures of one prompt: harmless diversity against independent runs and a sweep of weighted sums.

Every arm has the same random numbers and, but for two that show what this brings, the same scouts dealt apart; the
independent runs start as FuseDream does, from shared ones. Scores are those of the pictures kept, on the fixed
views; distances are taken by the judge, a network that no run optimises for. A run that was stopped goes on from its
scratch file.
"""

__all__ = ["diverse", "overhead"]

import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from studio.core.runs import Run, last
from studio.core.seeds import generator_from
from studio.methods.diversity import nearest_gap
from studio.methods.fusedream import Dream, FuseDreamConfig, fusedream
from studio.problems.clip_image import ClipImage, plain_features
from studio.problems.pairs import load_judge, load_pair
from studio.problems.prompts import parse_prompt, prompt_target
from studio.studies.diverse_images import REFRESH, DiverseImages

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ROOT / ".work" / "harmless_images.json"
SEEDS = 3
WEIGHTS = (0.01, 0.1, 1.0, 10.0)
SWEPT = 6
APART: dict[str, Any] = {"apart": True}
ARMS: dict[str, dict[str, Any]] = {
    "independent": {},
    "harmless": APART | {"method": "point"},
    "independent_apart": APART,
    "harmless_shared": {"method": "point"},
} | {f"linear_{weight:g}": APART | {"method": "linear", "weight": weight} for weight in WEIGHTS}
MAIN = ("independent", "harmless")


@dataclass(frozen=True)
class Table:
    """The settings of the comparison; fewer steps than a user would take, so that it ends within two hours."""

    members: int = 8
    prompts: int = 24
    steps: int = 80
    copies: int = DiverseImages.copies
    learning_rate: float = DiverseImages.learning_rate
    reach: float = DiverseImages.reach
    kappa: float = DiverseImages.kappa
    energy: str = DiverseImages.energy


def diverse(table: Table | None = None) -> dict[str, object]:
    """Return the figures: the main two arms on every prompt and seed, the sweep on fewer prompts and one seed."""
    table = table or Table()
    kept = _kept()
    main = [(arm, seed, at) for seed in range(SEEDS) for at in range(table.prompts) for arm in MAIN]
    jobs = main + [(arm, 0, at) for at in range(SWEPT) for arm in ARMS if arm not in MAIN]
    keys = {job: _key(table, *job) for job in jobs}
    todo = [job for job in jobs if keys[job] not in kept]
    began = time.monotonic()
    cores = int(os.environ.get("STUDIO_CORES", os.cpu_count() or 1))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_job, table, *job): job for job in todo}
        for count, future in enumerate(as_completed(running), 1):
            kept[keys[running[future]]] = future.result()
            _write(kept)
            print(f"{time.monotonic() - began:6.0f} s  {count} of {len(todo)}  {running[future]}", flush=True)
    return _figures({_name(*job): kept[key] for job, key in keys.items()}, table)


def overhead(members: int = 16, steps: int = 12) -> dict[str, object]:
    """Return what a harmless step costs over a plain one, in percent: both runs take turns, step by step."""
    torch.set_num_threads(1)
    prompt = _prompts()[0]
    runs = {arm: _run(Table(members=members, steps=100), arm, 0, prompt) for arm in ("independent", "harmless")}
    for run in runs.values():
        next(snapshot for snapshot in run if snapshot.step == 0)
    # Whole periods of the push and of the check, so that each is counted as often as it comes.
    spent: dict[str, list[float]] = {arm: [] for arm in runs}
    for _ in range(4 * steps):
        for arm, run in runs.items():
            began = time.perf_counter()
            next(run)
            spent[arm].append(time.perf_counter() - began)
    plain, ours = (statistics.mean(spent[arm]) for arm in runs)
    return {
        "step_overhead_percent": round(100 * (ours / plain - 1), 2),
        "step_seconds_independent": round(plain, 4),
        "step_seconds_harmless": round(ours, 4),
        "step_members": members,
        "steps_timed": 4 * steps,
    }


def _run(table: Table, arm: str, seed: int, prompt: str) -> Run[Dream]:
    return fusedream(_problem(table, prompt), _config(table, arm), generator_from(seed, "diverse", prompt))


def _problem(table: Table, prompt: str) -> ClipImage:
    pair = load_pair("embedded", "cpu")
    target = prompt_target(pair.clip, parse_prompt(prompt)).expand(table.members, -1)
    return ClipImage(pair.decoder, pair.clip, target, bank=pair.bank())


def _config(table: Table, arm: str) -> FuseDreamConfig:
    ours: dict[str, Any] = {"reach": table.reach, "kappa": table.kappa} if arm.startswith("harmless") else {}
    spread: dict[str, Any] = {"refresh": REFRESH, "energy": table.energy} if arm != "independent" else {}
    return FuseDreamConfig(
        steps=table.steps, copies=table.copies, yardstick=table.copies, learning_rate=table.learning_rate,
        **ours | spread | ARMS[arm],
    )  # fmt: skip


def _job(table: Table, arm: str, seed: int, at: int) -> dict[str, float]:
    """Return the loss and the distances of one population."""
    torch.set_num_threads(1)
    prompt = _prompts()[at]
    end = last(_run(table, arm, seed, prompt))
    problem = _problem(table, prompt)
    with torch.no_grad():
        images = problem.decode(end.best_z, end.best_y)
        judged, own = plain_features(load_judge("cpu"), images), problem.features(images)
        held_out = problem.held_out(images).mean().item()
    return {
        "loss": -end.best_scores.mean().item(),
        "held_out": held_out,
        "judge_mean": torch.pdist(judged).mean().item(),
        "judge_gap": nearest_gap(judged).item(),
        "own_gap": nearest_gap(own).item(),
    }


def _figures(done: dict[str, dict[str, float]], table: Table) -> dict[str, object]:
    """Return means of every arm, and ratios to the independent runs of the same prompts and seeds."""
    figures: dict[str, object] = {
        "images_settings": asdict(table) | {"seeds": SEEDS, "sweep_prompts": SWEPT, "sweep_seeds": 1}
    }
    swept = [(0, at) for at in range(SWEPT)]
    every = [(seed, at) for seed in range(SEEDS) for at in range(table.prompts)]
    for arm in MAIN:
        figures |= _compared(done, arm, "", every)
    for arm in ARMS:
        figures |= _compared(done, arm, "swept_", swept)
    figures["images_loss_ratio"] = figures["images_loss_ratio_harmless"]
    figures["images_judge_diversity_ratio"] = figures["images_judge_gap_ratio_harmless"]
    by_seed = []
    for seed in range(SEEDS):
        runs = {arm: [done[_name(arm, seed, at)] for at in range(table.prompts)] for arm in ("independent", "harmless")}
        loss, gap = (
            statistics.mean(run[part] for run in runs["harmless"])
            / statistics.mean(run[part] for run in runs["independent"])
            for part in ("loss", "judge_gap")
        )
        by_seed.append([round(loss, 4), round(gap, 4)])
    figures["images_ratios_by_seed"] = by_seed
    figures["images_weights_that_beat_us_on_both"] = _better(done)
    return figures


def _compared(
    done: dict[str, dict[str, float]], arm: str, label: str, pairs: list[tuple[int, int]]
) -> dict[str, object]:
    """Return the means of an arm over seeds and prompts, and their ratios to the independent runs of the same."""
    ours, plain = ([done[_name(each, *pair)] for pair in pairs] for each in (arm, "independent"))
    mean = {part: statistics.mean(run[part] for run in ours) for part in ours[0]}
    base = {part: statistics.mean(run[part] for run in plain) for part in plain[0]}
    ratios = {part: mean[part] / base[part] for part in ("loss", "judge_gap", "judge_mean")}
    found = {f"images_{label}{part}_{arm}": round(value, 5) for part, value in mean.items()}
    return found | {f"images_{label}{part}_ratio_{arm}": round(value, 4) for part, value in ratios.items()}


def _better(done: dict[str, dict[str, float]]) -> list[str]:
    """Return the weighted sums with a lower loss and a larger gap than the harmless runs of the same prompts."""

    def mean(arm: str, part: str) -> float:
        return statistics.mean(done[_name(arm, 0, at)][part] for at in range(SWEPT))

    loss, gap = mean("harmless", "loss"), mean("harmless", "judge_gap")
    return [arm for arm in ARMS if arm not in MAIN and mean(arm, "loss") <= loss and mean(arm, "judge_gap") >= gap]


def _prompts() -> list[str]:
    return json.loads((ROOT / "benchmarks" / "fusedream_prompts.json").read_text(encoding="utf-8"))["prompts"]


def _name(arm: str, seed: int, at: int) -> str:
    return f"{arm}/{seed}/{at}"


def _key(table: Table, arm: str, seed: int, at: int) -> str:
    """Return what a population's figures depend on: its settings, its start and the weights."""
    digest = load_pair("embedded", "cpu").digest
    return json.dumps([asdict(_config(table, arm)), table.members, seed, _prompts()[at], digest], sort_keys=True)


def _kept() -> dict[str, dict[str, float]]:
    return json.loads(SCRATCH.read_text(encoding="utf-8")) if SCRATCH.is_file() else {}


def _write(record: dict) -> None:
    SCRATCH.parent.mkdir(parents=True, exist_ok=True)
    SCRATCH.with_suffix(".part").write_text(json.dumps(record), encoding="utf-8")
    SCRATCH.with_suffix(".part").replace(SCRATCH)
