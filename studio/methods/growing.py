"""A network that grows while it learns: train until it stalls, score, split, go on, in stages that yield every step.

The loop of splitting steepest descent (Wu, Wang and Liu, 2019, arXiv 1910.02366), its energy-aware and signed followers
(arXiv 1910.03103, 2003.10392) and of what they are compared with; what a round does is in `growth_round`. Stages have a
fixed number of steps, and the optimiser is carried through surgery with what it has learnt (the public codes begin it
anew and train to convergence for many epochs). With Adam the rate falls along a cosine within each stage, so that
neurons are near a stationary point when they are scored, which is where the splitting matrix alone decides.
"""

__all__ = ["Grown", "growing", "grown_network", "growth_steps", "live_of", "trained_state"]

from collections.abc import Sequence
from dataclasses import replace
from math import cos, pi

import torch
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.growing_rounds import chosen_state, grown_state
from studio.methods.growing_state import (
    Grown,
    Kind,
    Live,
    first_state,
    inserted,
    measured_state,
    network_of,
    restored,
    with_state,
)
from studio.methods.growth_round import SCORED, GrowthConfig
from studio.methods.lineage import edits_of
from studio.nets.surgery import Change, Edit

ITERATIONS = 10


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
    now = (
        first_state(problem, config, total, generator, widths)
        if start is None
        else replace(start, total=total, outcome="")
    )
    live = live_of(problem, config, now)
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
    edits = edits_of(
        seed, problem.spaces, snapshot.grew_round, snapshot.grew_space, changes,
        lambda network, round: inserted(problem, network, snapshot.shape, round),
    )  # fmt: skip
    return network_of(problem, snapshot).eval(), edits


def _next(problem: GrowthProblem, config: GrowthConfig, generator: torch.Generator, live: Live, now: Grown) -> Grown:
    """Return the snapshot after the next step: of training, of scoring, or of splitting."""
    if now.into < config.stage:
        return trained_state(problem, config, live, now)
    if now.into == config.stage:
        return chosen_state(problem, config, generator, live, now)
    return grown_state(problem, config, generator, live, now)


def live_of(problem: GrowthProblem, config: GrowthConfig, now: Grown) -> Live:
    """Return the live network and optimiser of a snapshot."""
    network = network_of(problem, now)
    return restored(problem, now, _optimiser(network, config), network)


def _optimiser(network: nn.Module, config: GrowthConfig) -> torch.optim.Optimizer | None:
    if config.optimiser == "lbfgs":
        return None
    return torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.decay)


def trained_state(problem: GrowthProblem, config: GrowthConfig, live: Live, now: Kind) -> Kind:
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
    after = with_state(after, live)
    due = after.into % max(1, config.stage // config.measures) == 0 or after.into == config.stage
    return measured_state(problem, live, after) if due else after


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
