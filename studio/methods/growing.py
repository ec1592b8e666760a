"""A network that grows while it learns: train until it stalls, score, split, go on, in stages that yield every step.

The loop of splitting steepest descent (Wu, Wang and Liu, 2019, arXiv 1910.02366), its energy-aware and signed followers
(arXiv 1910.03103, 2003.10392) and of what they are compared with; what a round does is in `growth_round`. Stages have a
fixed number of steps, and the optimiser is carried through surgery with what it has learnt (the public codes begin it
anew and train to convergence for many epochs). With Adam the rate falls along a cosine within each stage, so that
neurons are near a stationary point when they are scored, which is where the splitting matrix alone decides.
"""

__all__ = ["Grown", "growing", "grown_network", "growth_steps"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.core.snapshots import MAX_BYTES, Snapshot
from studio.methods.growth_round import SCORED, Choice, GrowthConfig, choose, grow
from studio.methods.lineage import Lineage, edits_of, first_generation, next_generation
from studio.nets.carry import carry
from studio.nets.costs import macs, parameters
from studio.nets.probes import probed
from studio.nets.spaces import Spaces
from studio.nets.surgery import Change, Edit

ITERATIONS = 10
STATE_BYTES = MAX_BYTES - 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Grown(Snapshot):
    """A growing network after a step, and all that is needed to go on.

    `state`, `first`, `second`: its parameters and buffers, and Adam's moments of the parameters; `widths`: of its
    growable spaces. `into`: steps done of this round's stage; `trained`: of all stages; `spent`: their MACs. Per
    space, as parallel tuples, what `scenes.Layer` shows, from `ids` to `schemes`. `grew_*`: every space that changed
    in turn: the round, the space, the old channel behind each slot and its coefficient (see `lineage.edits_of`). Of
    the last round's splits, as parallel tuples: space and id of the neuron, scheme, changes of the loss predicted and
    measured. `tried`, `together`: step sizes and changes by all splits at once. `curve`: a row for each measurement:
    step, neurons, MACs, parameters, MACs spent on training, loss on a probe, accuracy.
    """

    state: tuple[Tensor, ...]
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    widths: tuple[int, ...]
    round: int
    into: int
    trained: int
    spent: float
    random: Tensor
    ids: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    born: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]
    seed_widths: tuple[int, ...]
    grew_round: tuple[int, ...]
    grew_space: tuple[int, ...]
    grew_src: tuple[Tensor, ...]
    grew_coef: tuple[Tensor, ...]
    low: tuple[Tensor, ...]
    high: tuple[Tensor, ...]
    gains: tuple[Tensor, ...]
    costs: tuple[Tensor, ...]
    schemes: tuple[tuple[str, ...], ...]
    scored: bool
    approximate: bool
    budget: float
    split_spaces: tuple[int, ...]
    split_ids: tuple[int, ...]
    split_schemes: tuple[str, ...]
    split_predicted: tuple[float, ...]
    split_measured: tuple[float, ...]
    curvature: float
    eps: float
    tried: tuple[float, ...]
    together: tuple[float, ...]
    function_change: float
    losses: Float[Tensor, " t"]
    curve: Float[Tensor, "k 7"]


@dataclass(eq=False)
class Live:
    """What a run holds between its steps: the network, its optimiser, the next split and the random state behind it."""

    network: nn.Module
    spaces: Spaces
    optimiser: torch.optim.Optimizer | None
    cost: int
    choice: tuple[Choice, Tensor] | None = None


def growth_steps(config: GrowthConfig) -> int:
    """Return how many steps a run has: its stages, two for each round (scoring, splitting), and a last scoring."""
    return (config.rounds + 1) * config.stage + 2 * config.rounds + (config.method in SCORED)


def growing(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, start: Grown | None = None,
    widths: Sequence[int] | None = None,
) -> Run[Grown]:  # fmt: skip
    """Yield the first network, then every step; `start` is a snapshot to go on from (ten steps are five and five).

    `widths` are those of the first network, where it shall not be the problem's own. The generator is used up; its
    state travels in the snapshots.
    """
    total = growth_steps(config)
    now = _first(problem, config, generator, widths) if start is None else replace(start, total=total, outcome="")
    live = _restored(problem, config, now)
    now = _ended(problem, config, now)
    yield now
    while now.step < total:
        generator.set_state(now.random)
        now = _ended(problem, config, _next(problem, config, generator, live, now))
        yield now


def grown_network(problem: GrowthProblem, snapshot: Grown) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return the network that a snapshot holds, in evaluation mode, and the edits that grew it from its first size."""
    seed = problem.network(snapshot.seed_widths, generator_from(0, "only its shape"))
    changes = [Change(src, coef) for src, coef in zip(snapshot.grew_src, snapshot.grew_coef, strict=True)]
    edits = edits_of(seed, problem.spaces, snapshot.grew_round, snapshot.grew_space, changes)
    return _network(problem, snapshot).eval(), edits


def _network(problem: GrowthProblem, now: Grown) -> nn.Module:
    """Return a network of a snapshot's widths with its weights."""
    network = problem.network(now.widths, generator_from(0, "to be overwritten"))
    network.load_state_dict(dict(zip(network.state_dict(), now.state, strict=True)))
    return network


def _next(problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown) -> Grown:
    """Return the snapshot after the next step: of training, of scoring, or of splitting."""
    if now.into < config.stage:
        return _trained(problem, config, live, now)
    if now.into == config.stage:
        return _scored(problem, config, generator, live, now)
    return _split(problem, config, generator, live, now)


def _first(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, widths: Sequence[int] | None
) -> Grown:
    network = problem.network(widths, generator)
    spaces = _spaces(problem, network)
    sizes = spaces.widths
    lineage = first_generation(sizes)
    nothing = tuple(torch.zeros(size, dtype=torch.float64) for size in sizes)
    blank = Grown(
        step=0, total=growth_steps(config), phase="training", state=(), first=(), second=(), widths=sizes,
        round=0, into=0, trained=0, spent=0.0, random=generator.get_state(),
        ids=(), parents=(), born=(), shares=(), seed_widths=sizes, grew_round=(), grew_space=(), grew_src=(),
        grew_coef=(), low=nothing, high=nothing, gains=nothing, costs=nothing,
        schemes=tuple(("",) * size for size in sizes), scored=False, approximate=False, budget=0.0,
        split_spaces=(), split_ids=(), split_schemes=(), split_predicted=(), split_measured=(),
        curvature=0.0, eps=config.eps, tried=(), together=(), function_change=0.0,
        losses=torch.zeros(0), curve=torch.zeros(0, 7, dtype=torch.float64),
    )  # fmt: skip
    live = Live(network, spaces, _optimiser(network, config), macs(network, problem.example))
    return _measured(problem, live, _with_lineage(_with_state(blank, live), lineage))


def _restored(problem: GrowthProblem, config: GrowthConfig, now: Grown) -> Live:
    """Return the live network and optimiser that a snapshot describes."""
    network = _network(problem, now)
    optimiser = _optimiser(network, config)
    if optimiser is not None and now.trained:
        for parameter, first, second in zip(network.parameters(), now.first, now.second, strict=True):
            optimiser.state[parameter] = {
                "step": torch.tensor(float(now.trained)),
                "exp_avg": first.to(parameter.device, copy=True),
                "exp_avg_sq": second.to(parameter.device, copy=True),
            }
    return Live(network, _spaces(problem, network), optimiser, macs(network, problem.example))


def _spaces(problem: GrowthProblem, network: nn.Module) -> Spaces:
    return probed(network, problem.spaces(network), problem.example)


def _optimiser(network: nn.Module, config: GrowthConfig) -> torch.optim.Optimizer | None:
    if config.optimiser == "lbfgs":
        return None
    return torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.decay)


def _trained(problem: GrowthProblem, config: GrowthConfig, live: Live, now: Grown) -> Grown:
    """Return the snapshot after one step of training: a batch with Adam, or ten iterations of L-BFGS on all."""
    inputs, targets = problem.batch(now.trained)
    live.network.train()
    if live.optimiser is None:
        loss, passes = _descended(problem, live.network, inputs, targets)
    else:
        rate = config.rate * (0.1 + 0.45 * (1 + cos(pi * now.into / config.stage)))
        live.optimiser.param_groups[0]["lr"] = rate
        live.optimiser.zero_grad()
        value = problem.loss(live.network(inputs), targets)
        value.backward()
        live.optimiser.step()
        loss, passes = float(value.detach()), 1
    if not loss < float("inf"):
        raise ValueError("rate is too large: the loss is no longer a number; take a smaller learning rate")
    after = replace(
        now, step=now.step + 1, phase="training", into=now.into + 1, trained=now.trained + 1,
        spent=now.spent + 3.0 * passes * len(inputs) * live.cost,
        losses=torch.cat([now.losses, torch.tensor([loss], dtype=now.losses.dtype)]),
    )  # fmt: skip
    after = _with_state(after, live)
    due = after.into % max(1, config.stage // config.measures) == 0 or after.into == config.stage
    return _measured(problem, live, after) if due else after


def _descended(problem: GrowthProblem, network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, int]:
    """Return the loss after some iterations of L-BFGS, begun without memory, and how often the network was run."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    solver = torch.optim.LBFGS(
        parameters, max_iter=ITERATIONS, tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        solver.zero_grad()
        value = problem.loss(network(inputs), targets)
        value.backward()
        return value

    solver.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        return float(problem.loss(network(inputs), targets)), calls


def _scored(problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown) -> Grown:
    """Return the snapshot with the neurons scored; the splits chosen wait for the next step."""
    live.choice = _chosen(problem, config, generator, live, now)
    choice = live.choice[0]
    low, high, gains, costs, schemes = (list(part) for part in (now.low, now.high, now.gains, now.costs, now.schemes))
    order = list(live.spaces.growable)
    for each, gain, price, names in zip(choice.every, choice.neuron_gains, choice.prices, choice.schemes, strict=True):
        at = order.index(each.space)
        low[at], high[at], gains[at], costs[at] = (
            part.double().cpu() for part in (each.spectrum.low, each.spectrum.high, gain, price)
        )
        schemes[at] = names
    return replace(
        now, step=now.step + 1, phase="scoring" if config.method in SCORED else "choosing", into=now.into + 1,
        low=tuple(low), high=tuple(high), gains=tuple(gains), costs=tuple(costs), schemes=tuple(schemes),
        scored=bool(choice.every), approximate=choice.approximate, budget=choice.budget,
    )  # fmt: skip


def _chosen(
    problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown
) -> tuple[Choice, Tensor]:
    """Return what the round is about to do, and the state in which that leaves the generator."""
    probes = problem.probe(2 * now.round), problem.probe(2 * now.round + 1)
    choice = choose(
        live.network, live.spaces, config, probes, lambda index: problem.batch(now.trained + index), problem.loss,
        generator,
    )  # fmt: skip
    return choice, generator.get_state()


def _split(problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown) -> Grown:
    """Return the snapshot after the round's splits; a run that was taken up between choice and split chooses again."""
    choice, state = live.choice or _chosen(problem, config, generator, live, now)
    live.choice = None
    generator.set_state(state)
    probe = problem.probe(2 * now.round + 1)
    outcome = grow(live.network, live.spaces, config, choice, probe, problem.loss, generator)
    if 12 * parameters(outcome.network) > STATE_BYTES:
        raise ValueError(
            f"the network would grow to {parameters(outcome.network):,} parameters, and a snapshot holds "
            f"{STATE_BYTES // 12:,}: take fewer rounds, a smaller share or a smaller cap"
        )
    order = list(live.spaces.growable)
    lineage, fresh = list(_lineage(now)), 1 + max(int(part.max()) for part in now.ids)
    kept = {name: list(getattr(now, name)) for name in ("low", "high", "gains", "costs", "schemes")}
    ids = {}
    for space, change in choice.changes.items():
        at = order.index(space)
        ids[space] = lineage[at].ids
        lineage[at] = next_generation(lineage[at], change, now.round + 1, fresh)
        fresh = max(fresh, 1 + int(lineage[at].ids.max()))
        copies = lineage[at].born == now.round + 1
        for name in ("low", "high", "gains", "costs"):
            part = kept[name][at][change.src.clamp(min=0)]
            kept[name][at] = torch.where(copies, 0.0, part) if name in ("gains", "costs") else part
        kept["schemes"][at] = tuple(
            "" if late else kept["schemes"][at][old] for late, old in zip(copies, change.src, strict=True)
        )
    if live.optimiser is not None:
        carry(live.optimiser, live.network, outcome.network, outcome.edits)
    live.network, live.spaces = outcome.network, _spaces(problem, outcome.network)
    live.cost = macs(live.network, problem.example)
    listed = [choice.plans[place] for place in outcome.listed]
    eps2 = outcome.eps**2
    after = replace(
        now, step=now.step + 1, phase="splitting", round=now.round + 1, into=0, random=generator.get_state(),
        widths=live.spaces.widths, **{name: tuple(parts) for name, parts in kept.items()},
        grew_round=now.grew_round + (now.round + 1,) * len(choice.changes),
        grew_space=now.grew_space + tuple(choice.changes),
        grew_src=now.grew_src + tuple(change.src for change in choice.changes.values()),
        grew_coef=now.grew_coef + tuple(change.coef for change in choice.changes.values()),
        split_spaces=tuple(order.index(plan.space) for plan in listed),
        split_ids=tuple(int(ids[plan.space][plan.neuron]) for plan in listed),
        split_schemes=tuple(plan.scheme for plan in listed),
        split_predicted=tuple(eps2 * choice.gains[place] for place in outcome.listed),
        split_measured=outcome.alone, curvature=choice.curvature, eps=outcome.eps, tried=outcome.tried,
        together=outcome.together, function_change=outcome.function_change,
    )  # fmt: skip
    return _measured(problem, live, _with_lineage(_with_state(after, live), tuple(lineage)))


def _with_state(now: Grown, live: Live) -> Grown:
    """Return the snapshot with copies of the network's tensors and the optimiser's moments."""
    state = tuple(_copied(part) for part in live.network.state_dict().values())
    moments = live.optimiser.state if live.optimiser is not None else {}
    held = [moments.get(parameter, {}) for parameter in live.network.parameters()]
    first, second = (tuple(_copied(part[name]) for part in held if part) for name in ("exp_avg", "exp_avg_sq"))
    return replace(now, state=state, first=first, second=second)


def _copied(part: Tensor) -> Tensor:
    return part.detach().cpu().clone(memory_format=torch.contiguous_format)


def _lineage(now: Grown) -> tuple[Lineage, ...]:
    return tuple(Lineage(*each) for each in zip(now.ids, now.parents, now.born, now.shares, strict=True))


def _with_lineage(now: Grown, lineage: Sequence[Lineage]) -> Grown:
    return replace(
        now, ids=tuple(each.ids for each in lineage), parents=tuple(each.parents for each in lineage),
        born=tuple(each.born for each in lineage), shares=tuple(each.shares for each in lineage),
    )  # fmt: skip


def _measured(problem: GrowthProblem, live: Live, now: Grown) -> Grown:
    """Return the snapshot with one more row of its curve: sizes, costs, loss on a probe, accuracy on the test set."""
    inputs, targets = problem.probe(2 * now.round + 1)
    live.network.eval()
    with torch.no_grad():
        loss = float(problem.loss(live.network(inputs), targets))
    row = [
        now.step, sum(now.widths), live.cost, parameters(live.network), now.spent, loss, problem.accuracy(live.network),
    ]  # fmt: skip
    return replace(now, curve=torch.cat([now.curve, torch.tensor([row], dtype=torch.float64)]))


def _ended(problem: GrowthProblem, config: GrowthConfig, now: Grown) -> Grown:
    """Return the snapshot as it stands: the last one of a run carries a sentence."""
    if now.step < growth_steps(config):
        return now
    neurons, cost, size, loss, right = (float(value) for value in now.curve[-1, [1, 2, 3, 5, 6]])
    stable = config.method in SCORED and all(bool((part >= 0).all()) for part in now.gains)
    words = (
        f"{neurons:,.0f} neuron{'s' * (neurons > 1)}, {size:,.0f} parameters, {cost:,.0f} multiply-accumulates: "
        f"loss {loss:.3g}, {right:.1%} {problem.test_words}"
    )
    end = "; no split lowers the loss any more" if stable else ""
    return replace(now, total=max(now.step, growth_steps(config)), outcome=words + end)
