"""Growth and pruning in turn against growth alone, pruning alone and training alone, on digits under one budget.

Every arm of a seed has the same split of the data and the same bound on its final energy. The stages before the last
are the plan's own; the last one goes on until every arm has spent the training work of the arm that needs most (in
multiply-accumulates, those of Firefly's candidates and of imitation included; scoring by splitting matrices is not
counted). Growth begins with the task's small network, pruning with a network of the ceiling's cost, and there are two
networks from scratch: the first network scaled up to the budget, and one of the widths at which `both` arrived.
"""

__all__ = ["both"]

import statistics
from dataclasses import asdict, dataclass, replace
from math import ceil

import torch

from benchmarks.splitting_growth import error_of, mean_of
from studio.core.runs import last
from studio.core.seeds import generator_from
from studio.methods.firefly import FireflyConfig
from studio.methods.grow_and_prune import GrowAndPruneConfig, Reshaped, grow_and_prune, moves
from studio.methods.grow_and_prune_budget import costs_of
from studio.methods.growth_round import GrowthConfig
from studio.nets.costs import energy
from studio.problems.growth_images import GrowthImages, growth_images

PLANS = {"both": "energy", "both_firefly": "firefly", "both_random": "random", "grow": "energy", "prune": "energy"}
ARMS = (*PLANS, "scratch", "scratch_widths")


@dataclass(frozen=True)
class Task:
    """A family of networks, the widths growth begins with, and the budget as a multiple of what they cost."""

    family: str
    start: tuple[int, ...]
    times: float
    ceiling: float = 1.5
    cycles: int = 3
    rounds: int = 3
    stage: int = 80
    final: int = 160
    rate: float = 0.03
    count: int = 1258
    batch: int = 64

    def problem(self, seed: int) -> GrowthImages:
        """Return the problem of a seed."""
        return growth_images("digits", self.family, "silu", "average", self.count, self.batch, seed)

    def config(self, problem: GrowthImages, arm: str) -> GrowAndPruneConfig:
        """Return the settings of an arm."""
        first = energy(problem.network(self.start, generator_from(0, "only its shape")), problem.example)
        growth = GrowthConfig(
            method=PLANS.get(arm, "energy"), rate=self.rate, measures=1, firefly=FireflyConfig(layers=0)
        )
        return GrowAndPruneConfig(
            budget=self.times * first, plan=arm.partition("_")[0], cycles=self.cycles, rounds=self.rounds,
            stage=self.stage, last=self.final, ceiling=self.ceiling, growth=growth,
        )  # fmt: skip


TASKS = {"digits_mlp": Task("mlp", (3,), 4.0), "digits_vgg": Task("vgg", (2, 2, 3, 3), 4.0)}


def both(seeds: int = 3) -> dict[str, object]:
    """Return every arm's accuracy, final cost and work on the tasks, and the paired differences to `both`."""
    torch.set_num_threads(1)
    figures: dict[str, object] = {}
    for name, task in TASKS.items():
        ends = [_ends(task, seed) for seed in range(seeds)]
        figures[f"{name}_settings"] = asdict(task) | {"seeds": seeds}
        for arm in ARMS:
            figures |= _summary(f"{name}_{arm}", task, [each[arm] for each in ends])
        for arm in ARMS[1:]:
            apart = [each["both"].curve[-1, 6].item() - each[arm].curve[-1, 6].item() for each in ends]
            figures[f"{name}_both_minus_{arm}"] = mean_of(apart, 4)
            figures[f"{name}_both_minus_{arm}_se"] = error_of(apart)
    return figures


def _ends(task: Task, seed: int) -> dict[str, Reshaped]:
    """Return the last snapshot of every arm of a seed, all after the same training work."""
    problem = task.problem(seed)
    before = {arm: _before(problem, task, arm, seed) for arm in PLANS}
    before["scratch"] = _before(problem, task, "scratch", seed)
    before["scratch_widths"] = _before(problem, task, "scratch", seed, before["both"].widths)
    work = max(now.spent + _final(task, arm) * _step_work(task, now) for arm, now in before.items())
    found = {}
    for arm, now in before.items():
        steps = round((work - now.spent) / _step_work(task, now))
        config = task.config(problem, arm)
        longer = replace(config, last=config.last + steps - _final(task, arm))
        found[arm] = last(grow_and_prune(problem, longer, generator_from(seed, "both"), now))
        print(f"  {task.family} {arm} seed {seed}: {found[arm].outcome}", flush=True)
    return found


def _before(problem: GrowthImages, task: Task, arm: str, seed: int, widths: tuple[int, ...] | None = None) -> Reshaped:
    """Return the snapshot at which an arm's last stage begins."""
    config = task.config(problem, arm)
    begin = task.start if config.plan in ("both", "grow") else widths
    run = grow_and_prune(problem, config, generator_from(seed, "both"), widths=begin)
    count = len(moves(config, config.budget))
    found = next(now for now in run if now.round == count)
    run.close()
    return found


def _final(task: Task, arm: str) -> int:
    """Return the steps of an arm's last stage where all arms train for equally many."""
    config = task.config(task.problem(0), arm)
    whole = (task.rounds + 2 * task.cycles - 1) * task.stage + task.final
    return whole - sum(move.steps for move in moves(config, config.budget))


def _step_work(task: Task, now: Reshaped) -> float:
    """Return the mean work of a step of training."""
    return 3.0 * task.count / ceil(task.count / task.batch) * float(now.curve[-1, 2])


def _summary(name: str, task: Task, ends: list[Reshaped]) -> dict[str, object]:
    """Return how an arm ends: means over seeds, with the standard deviation of its accuracy."""
    right = [float(end.curve[-1, 6]) for end in ends]
    costs = [float(costs_of(end.curve[-1:], "energy")) for end in ends]
    return {
        f"{name}_accuracy": mean_of(right, 4),
        f"{name}_accuracy_sd": round(statistics.stdev(right), 4) if len(right) > 1 else 0.0,
        f"{name}_accuracies": [round(value, 4) for value in right],
        f"{name}_loss": mean_of([float(end.curve[-1, 5]) for end in ends], 4),
        f"{name}_energy": mean_of(costs, 0),
        f"{name}_parameters": mean_of([float(end.curve[-1, 3]) for end in ends], 0),
        f"{name}_training_macs": float(f"{statistics.mean(end.spent for end in ends):.4g}"),
        f"{name}_widths": [list(end.widths) for end in ends],
    }
