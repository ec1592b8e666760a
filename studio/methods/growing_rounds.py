"""The steps of a round of growth, from snapshot to snapshot: candidates scored, then splits and new neurons made."""

__all__ = ["STATE_BYTES", "Step", "changed_state", "chosen_state", "grown_state", "step_of"]

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.snapshots import MAX_BYTES
from studio.methods.firefly_growth import Listed, made
from studio.methods.firefly_round import FireflyChoice, Limits, proposed
from studio.methods.growing_state import (
    Grown,
    Kind,
    Live,
    lineages,
    measured_state,
    spaces_of,
    with_lineages,
    with_state,
)
from studio.methods.growth_round import SCORED, Choice, GrowthConfig, choose, grow
from studio.methods.lineage import Lineage, given, next_generation
from studio.nets.carry import carry
from studio.nets.costs import COUNTERS, macs, parameters
from studio.nets.depth import Insertion
from studio.nets.surgery import Change, Edit

STATE_BYTES = MAX_BYTES - 2**20
BACKWARD = 3.0  # passes forward that a pass forward and backward costs
DOUBLED = 2.0


def chosen_state(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Kind
) -> Kind:
    """Return the snapshot with candidates scored; what was chosen waits in `live` for the next step."""
    if live.optimiser is not None:
        live.optimiser.zero_grad()  # their memory is wanted
    live.choice = _chosen(problem, config, generator, live, now)
    choice = live.choice[0]
    after = replace(now, step=now.step + 1, into=now.into + 1, budget=choice.budget)
    if isinstance(choice, FireflyChoice):
        table = choice.table
        return replace(
            after, phase="scoring", spent=now.spent + DOUBLED * BACKWARD * choice.examples * live.cost,
            candidate_layers=table.layers, candidate_kinds=table.kinds, candidate_gains=table.gains,
            candidate_costs=table.costs, candidate_chosen=table.chosen,
        )  # fmt: skip
    low, high, gains, costs, schemes = (list(part) for part in (now.low, now.high, now.gains, now.costs, now.schemes))
    order = list(live.spaces.growable)
    for each, gain, price, names in zip(choice.every, choice.neuron_gains, choice.prices, choice.schemes, strict=True):
        at = order.index(each.space)
        low[at], high[at], gains[at], costs[at] = (
            part.double().cpu() for part in (each.spectrum.low, each.spectrum.high, gain, price)
        )
        schemes[at] = names
    return replace(
        after, phase="scoring" if config.method in SCORED else "choosing", low=tuple(low), high=tuple(high),
        gains=tuple(gains), costs=tuple(costs), schemes=tuple(schemes), scored=bool(choice.every),
        approximate=choice.approximate,
    )  # fmt: skip


def grown_state(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Kind
) -> Kind:
    """Return the snapshot after the round's growth; a run taken up between choice and growth chooses again."""
    choice, state = live.choice or _chosen(problem, config, generator, live, now)
    live.choice = None
    generator.set_state(state)
    step = step_of(problem, config, generator, live, now, choice)
    return changed_state(problem, generator, live, now, step, "splitting")


def changed_state(
    problem: GrowthProblem, generator: torch.Generator, live: Live, now: Kind, step: "Step", phase: str
) -> Kind:
    """Return the snapshot after a step that made another network of the live one: its neurons' lineage goes on."""
    if 12 * parameters(step.network) > STATE_BYTES:
        raise ValueError(
            f"the network would grow to {parameters(step.network):,} parameters, and a snapshot holds "
            f"{STATE_BYTES // 12:,}: take fewer rounds, a smaller share or a smaller cap"
        )
    born, old = now.round + 1, {live.spaces[space].name: at for at, space in enumerate(live.spaces.growable)}
    spaces = spaces_of(problem, step.deeper) if step.layers else live.spaces
    fresh = given(now.seed_widths, now.layer_sizes, now.grew_src)
    lineage: list[Lineage] = []
    kept: dict[str, list] = {name: [] for name in ("low", "high", "gains", "costs", "schemes")}
    for space in spaces.growable:
        at = old.get(spaces[space].name)
        size = spaces[space].size
        own = _newborn(size, fresh, born) if at is None else lineages(now)[at]
        fresh = max(fresh, 1 + int(own.ids.max()))
        values = {name: _nothing(size, name) if at is None else getattr(now, name)[at] for name in kept}
        if space in step.changes:
            change = step.changes[space]
            own = next_generation(own, change, born, fresh)
            fresh = max(fresh, 1 + int(own.ids.max()))
            values = {name: _moved(values[name], name, change, own.born == born) for name in kept}
        lineage.append(own)
        for name, value in values.items():
            kept[name].append(value)
    order = {space: at for at, space in enumerate(spaces.growable)}
    if live.optimiser is not None:
        carry(live.optimiser, live.network, step.network, step.edits)
    live.network, live.spaces = step.network, spaces_of(problem, step.network)
    live.cost = macs(live.network, problem.example)
    changes = step.changes
    after = replace(
        now, step=now.step + 1, phase=phase, round=born, into=0, random=generator.get_state(),
        widths=live.spaces.widths, **{name: tuple(parts) for name, parts in kept.items()},
        grew_round=now.grew_round + (born,) * len(changes), grew_space=now.grew_space + tuple(changes),
        grew_src=now.grew_src + tuple(change.src for change in changes.values()),
        grew_coef=now.grew_coef + tuple(change.coef for change in changes.values()),
        layer_nodes=now.layer_nodes + tuple(each.node for each in step.layers),
        layer_names=now.layer_names + tuple(each.name for each in step.layers),
        layer_rounds=now.layer_rounds + (born,) * len(step.layers),
        layer_sizes=now.layer_sizes + tuple(each.width for each in step.layers),
        layer_joined=now.layer_joined + (now.trained,) * len(step.layers),
        split_spaces=tuple(order[each.space] for each in step.listed),
        split_ids=tuple(int(lineage[order[each.space]].ids[each.slot]) for each in step.listed),
        split_schemes=tuple(each.kind for each in step.listed),
        split_predicted=tuple(each.gain for each in step.listed),
        split_measured=tuple(each.alone for each in step.listed), curvature=step.curvature, eps=step.eps,
        tried=step.tried, together=step.together, function_change=step.function_change, changed=step.changed,
    )  # fmt: skip
    return measured_state(problem, live, with_lineages(with_state(after, live), tuple(lineage)))


@dataclass(frozen=True, eq=False)
class Step:
    """What a round did, whatever method chose it; `layers` were inserted first."""

    network: nn.Module
    deeper: nn.Module
    layers: tuple[Insertion, ...]
    edits: tuple[Edit, ...]
    changes: dict[int, Change]
    listed: tuple[Listed, ...]
    changed: float
    function_change: float
    eps: float
    curvature: float = 0.0
    tried: tuple[float, ...] = ()
    together: tuple[float, ...] = ()


def _chosen(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown
) -> tuple[Choice | FireflyChoice, Tensor]:
    """Return what the round is about to do, and the state in which that leaves the generator."""
    probes = problem.probe(2 * now.round), problem.probe(2 * now.round + 1)

    def batches(index: int) -> tuple[Tensor, Tensor]:
        return problem.batch(now.trained + index)

    if config.method == "firefly":
        limits = Limits(config.share, config.cap, COUNTERS.get(config.unit))
        choice: Choice | FireflyChoice = proposed(
            live.network, lambda network: spaces_of(problem, network), config.firefly, config.eps, limits, probes[0],
            batches, problem.loss, generator,
        )  # fmt: skip
    else:
        choice = choose(live.network, live.spaces, config, probes, batches, problem.loss, generator)
    return choice, generator.get_state()


def step_of(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown,
    choice: Choice | FireflyChoice,
) -> Step:  # fmt: skip
    """Return what a choice makes of the live network, which stays as it is."""
    probe = problem.probe(2 * now.round + 1)
    if isinstance(choice, FireflyChoice):
        done = made(live.network, lambda network: spaces_of(problem, network), choice, probe, problem.loss)
        return Step(
            done.network, done.deeper, done.insertions, done.edits,
            done.changes, done.listed, done.after - done.before, done.function_change, config.eps,
        )  # fmt: skip
    outcome = grow(live.network, live.spaces, config, choice, probe, problem.loss, generator)
    listed = tuple(
        Listed(plan.space, int((choice.changes[plan.space].src == plan.neuron).nonzero()[0]), plan.scheme,
                outcome.eps**2 * choice.gains[place], alone)
        for place, alone in zip(outcome.listed, outcome.alone, strict=True)
        for plan in [choice.plans[place]]
    )  # fmt: skip
    return Step(
        outcome.network, live.network, (), outcome.edits, choice.changes, listed, outcome.changed,
        outcome.function_change, outcome.eps, choice.curvature, outcome.tried, outcome.together,
    )  # fmt: skip


def _newborn(size: int, fresh: int, born: int) -> Lineage:
    """Return the lineage of a layer whose neurons are all new."""
    nobody = torch.full((size,), -1)
    return Lineage(fresh + torch.arange(size), nobody, torch.full_like(nobody, born), torch.ones(size).double())


def _nothing(size: int, name: str) -> Tensor | tuple[str, ...]:
    return ("",) * size if name == "schemes" else torch.zeros(size, dtype=torch.float64)


def _moved(values: Tensor | tuple[str, ...], name: str, change: Change, late: Tensor) -> Tensor | tuple[str, ...]:
    """Return what is known of each neuron after a change: of those that are new only where their parents bend."""
    if not isinstance(values, Tensor):
        return tuple("" if new else values[old] for new, old in zip(late.tolist(), change.src.tolist(), strict=True))
    part = values[change.src.clamp(min=0)]
    return torch.where(late, 0.0, part) if name in ("gains", "costs") else part
