"""Accuracy against multiply-accumulates, before and after equal tuning: greedy imitation and what it is compared with.

Every arm of a seed prunes the same trained network to the same budgets and is tuned with the same batches and learning
rates. `magnitude`, `taylor`, `batchnorm` and `random` keep the same share of channels in every layer; torch-pruning is
its magnitude pruner, its ratio bisected to the budget. Greedy arms keep the same shares, but for the one with a
tolerance for all layers. `refit` solves all weights of the readers anew, which is not in the paper; to tell what it
does from what the selection does, magnitude has an arm with it too. Rows are kept in `.work/pruning`, from which a
measurement that was stopped goes on; remove the folder to measure again.
"""

__all__ = ["ARMS", "SHARES", "TASKS", "accuracy", "summary"]

import json
import statistics
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import torch
from torch import nn

from studio.core.runs import last
from studio.methods.pruning import PruneConfig, pruning
from studio.methods.pruning_state import pruned_network
from studio.nets.costs import macs
from studio.nets.network_files import load_network, save_network
from studio.problems.growth_images import GrowthImages, growth_images
from studio.problems.pruned_networks import begun_network

SCRATCH = Path(__file__).resolve().parents[1] / ".work" / "pruning"
SHARES = (0.7, 0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Task:
    """A data set, a family of networks `width` times as wide as usual, and how long it trains and tunes."""

    data: str
    network: str
    width: float
    count: int
    training: int
    tuning: int
    rate: float = 2e-3
    tuning_rate: float = 5e-4


TASKS = {
    "cifar_resnet": Task("cifar-10", "resnet", 1.0, 18_000, 1000, 80),
    "cifar_mobilenet": Task("cifar-10", "mobilenet", 1.0, 18_000, 1000, 80),
    "fashion_vgg": Task("fashion-mnist", "vgg", 0.5, 18_000, 500, 60),
}


@dataclass(frozen=True)
class Arm:
    """How a network is pruned: method, allocation, target, and whether readers are refitted."""

    method: str
    allocation: str = "uniform"
    target: str = "same_inputs"
    refit: bool = False


ARMS = {
    "line_search": Arm("line_search"),
    "fully_corrective": Arm("fully_corrective"),
    "imitation_refit": Arm("fully_corrective", target="original", refit=True),
    "imitation_refit_tolerance": Arm("fully_corrective", "tolerance", "original", True),
    "magnitude": Arm("magnitude"),
    "taylor": Arm("taylor"),
    "batchnorm": Arm("batchnorm"),
    "random": Arm("random"),
    "magnitude_refit": Arm("magnitude", target="original", refit=True),
    "torch_pruning": Arm(""),
}
GREEDY = ("line_search", "fully_corrective", "imitation_refit", "imitation_refit_tolerance")
POINT = 0.01


def accuracy(tasks: tuple[str, ...], seeds: int) -> dict[str, object]:
    """Return the table of all arms: mean and standard deviation over seeds, before and after tuning."""
    rows = [row for seed in range(seeds) for task in tasks for row in _measured(task, seed)]
    return {"accuracy_against_macs": {task: summary([row for row in rows if row["task"] == task]) for task in tasks}}


def summary(rows: list[dict]) -> dict[str, object]:
    """Return for every arm and share the accuracies, and for every share how the best greedy arm stands."""
    full = [row["full"] for row in rows]
    table: dict[str, object] = {"full": [round(statistics.mean(full), 4), round(_spread(full), 4)]}
    for share in SHARES:
        own = {arm: [row for row in rows if row["arm"] == arm and row["share"] == share] for arm in ARMS}
        cells = {
            arm: {
                name: [round(statistics.mean(values), 4), round(_spread(values), 4)]
                for name, values in (
                    ("before", [r["before"] for r in found]), ("after", [r["after"] for r in found]),
                    ("macs", [r["macs"] for r in found]),
                )
            }
            for arm, found in own.items() if found
        }  # fmt: skip
        table[f"{share:.0%}"] = cells | {"verdict": _verdict(own)}
    return table


def _verdict(own: dict[str, list[dict]]) -> dict[str, object]:
    """Return how the line search of the paper and the best greedy arm stand against the best other, paired by seed."""
    others = [arm for arm in own if arm not in GREEDY and arm != "magnitude_refit" and own[arm]]
    best = max(others, key=lambda arm: statistics.mean(row["after"] for row in own[arm]))
    verdict: dict[str, object] = {"best_other": best}
    for arm in GREEDY:
        pairs = {row["seed"]: row["after"] for row in own[best]}
        gaps = [row["after"] - pairs[row["seed"]] for row in own[arm] if row["seed"] in pairs]
        if gaps:
            mean, spread = statistics.mean(gaps), _spread(gaps)
            word = "tied" if abs(mean) <= max(spread, POINT / 2) else "ahead" if mean > 0 else "behind"
            verdict[arm] = [round(mean, 4), round(spread, 4), word]
    return verdict


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _measured(task: str, seed: int) -> list[dict]:
    """Return a row for every arm and share of one task and seed, measuring those that are not there yet."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    path = SCRATCH / f"{task}-{seed}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["arm"], row["share"]) for row in rows}
    missing = [(arm, share) for share in SHARES for arm in ARMS if (arm, share) not in done]
    if not missing:
        return rows
    problem, network, full = trained(task, seed)
    for arm, share in missing:
        small = pruned(problem, network, arm, share, seed)
        before = problem.accuracy(small)
        tuned(problem, small, TASKS[task], seed)
        row = {
            "task": task, "seed": seed, "arm": arm, "share": share, "full": full, "before": before,
            "after": problem.accuracy(small), "macs": macs(small, problem.example) / macs(network, problem.example),
        }  # fmt: skip
        rows.append(row)
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(task, seed, f"{share:.0%}", arm, f"{before:.3f} -> {row['after']:.3f}", flush=True)
    return rows


def trained(task: str, seed: int) -> tuple[GrowthImages, nn.Module, float]:
    """Return the problem of a task and seed, its trained network, kept in a file, and the network's accuracy."""
    plan = TASKS[task]
    problem = growth_images(plan.data, plan.network, "relu", "average", plan.count, 128, seed)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    path = SCRATCH / f"{task}-{seed}.safetensors"
    if path.exists():
        network = load_network(path)[0]
    else:
        network = begun_network(problem, plan.width, seed)
        _descended(problem, network, plan.training, plan.rate, 0)
        save_network(path, network)
    return problem, network.eval(), problem.accuracy(network)


def pruned(problem: GrowthImages, network: nn.Module, arm: str, share: float, seed: int) -> nn.Module:
    """Return the network pruned by an arm to a share of its multiply-accumulates."""
    way = ARMS[arm]
    if not way.method:
        from benchmarks.pruning_peer import torch_pruned

        return torch_pruned(network, problem.example, share)
    config = PruneConfig(
        method=way.method, allocation=way.allocation, target=way.target, refit=way.refit, macs=share, frames=1,
        training=0, after=0, rates=False, examples=512, positions=16,
    )  # fmt: skip
    return pruned_network(problem, last(pruning(problem, config, network, seed)), network)[0]


def tuned(problem: GrowthImages, network: nn.Module, plan: Task, seed: int) -> None:
    """Tune a network in place: for all arms the same batches and learning rates."""
    _descended(problem, network, plan.tuning, plan.tuning_rate, plan.training)


def _descended(problem: GrowthImages, network: nn.Module, steps: int, top: float, first: int) -> None:
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=top, weight_decay=1e-4)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = top * (0.02 + 0.49 * (1 + cos(pi * step / steps)))
        inputs, targets = problem.batch(first + step)
        optimiser.zero_grad()
        problem.loss(network(inputs), targets).backward()
        optimiser.step()
    network.eval()
