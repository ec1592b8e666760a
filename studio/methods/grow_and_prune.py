"""A network that grows and is pruned in turn under one budget of cost, with one axis on which both are counted.

It trains, grows by a round to a ceiling above the budget, trains, is pruned back to the budget by greedy imitation,
trains again, and so on. The growth is that of splitting steepest descent (Wu, Wang and Liu, 2019, arXiv 1910.02366),
of its energy-aware follower (arXiv 1910.03103), of Firefly (arXiv 2102.08574) or a random one; the pruning is local
imitation by forward selection (Ye, Wu and Liu, 2020, arXiv 2010.15969).

    E(widths) = MACs + 100 parameters, or either of them;   E <= ceiling B after a growth,   E <= B after a pruning

No paper alternates the two under one budget: the schedule is ours. Growth takes the largest share that stays below the
ceiling, found by choosing again a few times; pruning shares one error among all layers. The optimiser, the neurons'
lineage and the record of edits go on through both. The work of training is counted in multiply-accumulates; so are the
examples run for Firefly's candidates and for imitation, but not the products with splitting matrices, nor the algebra.
"""

__all__ = ["PLANS", "GrowAndPruneConfig", "Move", "Reshaped", "grow_and_prune", "largest", "moves", "total_steps"]

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

import torch
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.grow_and_prune_budget import UNITS, CutConfig, costs_of, cut_to, scaled, share_for, widths_cost
from studio.methods.growing import Grown, live_of, trained_state
from studio.methods.growing_rounds import STATE_BYTES, Step, changed_state, chosen_state, grown_state, step_of
from studio.methods.growing_state import Live, first_state
from studio.methods.growth_round import GrowthConfig
from studio.methods.pruning_layer import calibration
from studio.nets.costs import COUNTERS, parameters

PLANS = ("both", "grow", "prune", "scratch")
TRIES = 5
CLOSE = 0.97  # of the cost a round may reach: nearer is not looked for


@dataclass(frozen=True)
class GrowAndPruneConfig:
    """How a network grows and is pruned.

    `plan`: `both`; `grow` to the budget and no further; `prune` what was trained at the ceiling's size; or `scratch`,
    training alone. All train for equally many steps. `budget` is what the network may cost in the end, in `unit` (macs,
    parameters or energy), `ceiling` how many times that it may cost between growth and pruning. The first of `cycles`
    grows in `rounds`, the others in one. Before each move come `stage` steps of training, after the last one `last`
    more. `growth` and `cut` are the settings of the two; the share, the stage and what is counted are set here.
    """

    budget: float
    plan: str = "both"
    cycles: int = 2
    rounds: int = 3
    stage: int = 60
    last: int = 60
    ceiling: float = 1.5
    unit: str = "energy"
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    cut: CutConfig = field(default_factory=CutConfig)

    @property
    def most(self) -> float:
        """Return what the network may cost between growth and pruning."""
        return self.ceiling * self.budget


@dataclass(frozen=True)
class Move:
    """A change of the network's size: `grow` or `prune`, after so many steps of training, to a cost of `target`."""

    steps: int
    kind: str
    target: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshaped(Grown):
    """A network that grows and is pruned, after a step; a round is a move of either kind.

    `share`: the share of growth that was chosen, for the move under way. Of the last pruning: the `errors` of each
    layer's imitation, and how many channels of it were `dropped`; nothing after a growth.
    """

    share: float
    errors: tuple[float, ...]
    dropped: tuple[int, ...]


def moves(config: GrowAndPruneConfig, begin: float) -> tuple[Move, ...]:
    """Return the moves of a plan, for a network that costs `begin` at first; costs go up and down geometrically."""
    stage, rounds, cycles = config.stage, config.rounds, config.cycles
    up, down = Move(stage, "grow", config.most), Move(stage, "prune", config.budget)
    if config.plan == "both":
        return (*_path(stage, "grow", begin, config.most, rounds), down, *(up, down) * (cycles - 1))
    if config.plan == "grow":
        return _path(stage, "grow", begin, config.budget, rounds)
    if config.plan == "prune":
        first, *others = _path(2 * stage, "prune", begin, config.budget, cycles)
        return (replace(first, steps=rounds * stage), *others)
    return ()


def _path(steps: int, kind: str, begin: float, end: float, count: int) -> tuple[Move, ...]:
    return tuple(Move(steps, kind, begin * (end / begin) ** ((at + 1) / count)) for at in range(count))


def total_steps(config: GrowAndPruneConfig) -> int:
    """Return how many steps a run has: training, two for each growth (scoring, splitting) and one for each pruning."""
    return _training(config) + sum(2 if move.kind == "grow" else 1 for move in moves(config, config.budget))


def _training(config: GrowAndPruneConfig) -> int:
    """Return the training steps of a run, the same in all plans."""
    return (config.rounds + 2 * config.cycles - 1) * config.stage + config.last


def largest(problem: GrowthProblem, config: GrowAndPruneConfig) -> tuple[int, ...]:
    """Return the widths of a run's largest network, if it were the first one scaled up.

    Raises `ValueError` where snapshots cannot hold it, or the budget is too small for one channel a layer.
    """
    bound = config.most if config.plan in ("both", "prune") else config.budget
    widths = scaled(problem, config.unit, bound)
    size = parameters(problem.network(widths, generator_from(0, "only its shape")))
    if 12 * size > STATE_BYTES:
        raise ValueError(f"budget makes {size:,} parameters, and a snapshot holds {STATE_BYTES // 12:,}: take less")
    return widths


def grow_and_prune(
    problem: GrowthProblem, config: GrowAndPruneConfig, generator: torch.Generator, start: Reshaped | None = None,
    widths: Sequence[int] | None = None,
) -> Run[Reshaped]:  # fmt: skip
    """Yield the first network, then every step; `start` is a snapshot to go on from (ten steps are five and five).

    `widths` are those of the first network. Without them it is the problem's own, or as large as the ceiling (`prune`)
    or the budget (`scratch`) allows. The generator is used up; its state travels in the snapshots. Raises `ValueError`
    for an unknown plan or unit, and for a network that snapshots cannot hold.
    """
    _check(config)
    total = total_steps(config)
    now = _first(problem, config, generator, widths) if start is None else start
    live = live_of(problem, config.growth, now)
    now = _ended(problem, config, replace(now, total=total, outcome=""))
    yield now
    while now.step < total:
        generator.set_state(now.random)
        now = _ended(problem, config, _next(problem, config, generator, live, now))
        yield now


def _check(config: GrowAndPruneConfig) -> None:
    if config.plan not in PLANS:
        raise ValueError(f"plan must be one of {', '.join(PLANS)}, got {config.plan!r}")
    if config.unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {config.unit!r}")
    if config.ceiling < 1:
        raise ValueError(f"ceiling must be at least 1, got {config.ceiling:g}: growth goes above the budget")


def _first(
    problem: GrowthProblem, config: GrowAndPruneConfig, generator: torch.Generator, widths: Sequence[int] | None
) -> Reshaped:
    """Return the snapshot before the first step."""
    widest = largest(problem, config)
    if widths is None and config.plan in ("prune", "scratch"):
        widths = widest
    first = first_state(problem, config.growth, total_steps(config), generator, widths)
    return Reshaped(**vars(first), share=0.0, errors=(), dropped=())


def _next(
    problem: GrowthProblem, config: GrowAndPruneConfig, generator: torch.Generator, live: Live, now: Reshaped
) -> Reshaped:
    """Return the snapshot after the next step: of training, of scoring, of growth, or of pruning."""
    plan = moves(config, float(costs_of(now.curve[:1], config.unit)))
    left = _training(config) - sum(move.steps for move in plan)
    move = plan[now.round] if now.round < len(plan) else Move(left, "", inf)
    settings = replace(config.growth, stage=move.steps, unit=config.unit, cost=config.unit)
    if now.into < move.steps:
        return trained_state(problem, settings, live, now)
    if move.kind == "prune":
        return _pruned(problem, config, generator, live, now, move.target)
    if now.into == move.steps:
        return _scored(problem, config.unit, settings, generator, live, now, move.target)
    if now.share == 0.0:
        return _unchanged(problem, generator, live, now)
    grown = grown_state(problem, replace(settings, share=now.share), generator, live, now)
    return replace(grown, errors=(), dropped=())


def _scored(
    problem: GrowthProblem, unit: str, settings: GrowthConfig, generator: torch.Generator, live: Live, now: Reshaped,
    target: float,
) -> Reshaped:  # fmt: skip
    """Return the snapshot with the round's growth chosen: the largest found that costs at most `target`.

    What one more channel costs is known to first order only, so that a share may lead too far or not far enough: it is
    then moved along the line between two costs, and the choice made again.
    """
    own = float(costs_of(now.curve[-1:], unit))
    idle = replace(now, step=now.step + 1, into=now.into + 1, phase="scoring", share=0.0, budget=0.0)
    best, choice, reached, tries, low, high = idle, None, own, 0, 0.0, inf
    share = share_for(widths_cost(live.network, live.spaces, problem.example, unit), live.spaces, target)
    while share > 0 and tries < TRIES and reached < CLOSE * target:
        generator.set_state(now.random)
        after = chosen_state(problem, replace(settings, share=share), generator, live, now)
        cost, tries = _cost_after(problem, unit, settings, generator, live, now), tries + 1
        if reached < cost <= target:
            best, choice, reached = replace(after, share=share), live.choice, cost
        low, high = (share, high) if cost <= target else (low, share)
        share = _next_share(share, (cost - own) / (target - own), low, high)
    live.choice = choice
    return replace(best, spent=now.spent + tries * (best.spent - now.spent))


def _next_share(share: float, way: float, low: float, high: float) -> float:
    """Return the share to try after one that led so far on the `way` to the target; those outside are known to fail."""
    found = 2 * share if way <= 0 else share * CLOSE / way if way > 1 else share / way
    return found if low < found < high else (low + high) / 2 if high < inf else 1.5 * low


def _cost_after(
    problem: GrowthProblem, unit: str, settings: GrowthConfig, generator: torch.Generator, live: Live, now: Reshaped
) -> float:
    """Return what the network would cost after the growth that waits in `live`."""
    if live.choice is None:
        return inf
    grown = step_of(problem, settings, generator, live, now, live.choice[0]).network
    return float(COUNTERS[unit](grown, problem.example))


def _unchanged(problem: GrowthProblem, generator: torch.Generator, live: Live, now: Reshaped) -> Reshaped:
    """Return the snapshot after a growth for which there was no room, or no neuron worth it."""
    step = Step(live.network, live.network, (), (), {}, (), 0.0, 0.0, now.eps)
    return replace(changed_state(problem, generator, live, now, step, "splitting"), errors=(), dropped=())


def _pruned(
    problem: GrowthProblem, config: GrowAndPruneConfig, generator: torch.Generator, live: Live, now: Reshaped,
    target: float,
) -> Reshaped:  # fmt: skip
    """Return the snapshot after channels were dropped until the network costs at most `target`."""
    batches = calibration(problem, now.trained, config.cut.examples)
    cost = widths_cost(live.network, live.spaces, problem.example, config.unit)
    sizes, network = live.spaces.widths, live.network
    cut = cut_to(network, live.spaces, cost, target, batches, config.cut, generator)
    probe = problem.probe(2 * now.round + 1)
    changed = _loss(problem, cut.network, probe) - _loss(problem, network, probe)
    none, examples = torch.zeros(0, dtype=torch.float64), sum(len(batch) for batch in batches)
    counted = replace(
        now, spent=now.spent + float(cut.passes * examples * live.cost), budget=target, candidate_layers=(),
        candidate_kinds=(), candidate_gains=none, candidate_costs=none, candidate_chosen=none > 0,
    )  # fmt: skip
    step = Step(cut.network, network, (), cut.edits, cut.changes, (), changed, 0.0, now.eps)
    after = changed_state(problem, generator, live, counted, step, "pruning")
    dropped = tuple(old - new for old, new in zip(sizes, after.widths, strict=True))
    return replace(after, errors=cut.errors, dropped=dropped)


def _loss(problem: GrowthProblem, network: nn.Module, probe: tuple[Tensor, Tensor]) -> float:
    network.eval()
    with torch.no_grad():
        return float(problem.loss(network(probe[0]), probe[1]))


def _ended(problem: GrowthProblem, config: GrowAndPruneConfig, now: Reshaped) -> Reshaped:
    """Return the snapshot as it stands: the last one of a run carries a sentence."""
    if now.step < now.total:
        return now
    neurons, size, loss, right = (float(value) for value in now.curve[-1, [1, 3, 5, 6]])
    cost = float(costs_of(now.curve[-1:], config.unit))
    words = (
        f"{neurons:,.0f} neuron{'s' * (neurons > 1)}, {size:,.0f} parameters, {config.unit} {cost:,.0f} of "
        f"{config.budget:,.0f} allowed: loss {loss:.3g}, {right:.1%} {problem.test_words}"
    )
    return replace(now, outcome=words)
