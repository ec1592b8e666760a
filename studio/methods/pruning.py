"""Pruning by greedy imitation: train or take a network, choose and re-weight channels layer by layer, fold, tune.

Ye, Wu and Liu, "Greedy Optimization Provably Wins the Lottery", NeurIPS 2020, arXiv 2010.15969, with the order, the
training between layers and the tuning after them of the authors' public code. A layer's few channels imitate what all
of them give to the layers that read them (`forward_selection`), or to the output (`global_imitation`); then they are
the layer, and the next one is imitated on what it now receives. The code stops by the accuracy on a part of the
training set; here a layer ends with its error, with its channels or with the budget of the whole network, and says so.
Channels are removed, not masked, and nothing is trained in the selection itself.
"""

__all__ = ["PruneConfig", "Pruned", "prune_steps", "pruning"]

import copy
from collections import Counter
from dataclasses import dataclass, replace
from math import cos, pi

import numpy as np
import torch
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.forward_selection import Stop
from studio.methods.global_imitation import Outputs
from studio.methods.pruning_baselines import BASELINES, baseline_order, scores
from studio.methods.pruning_budget import Curve, allotted
from studio.methods.pruning_cut import shrunk
from studio.methods.pruning_layer import (
    Layer,
    begun,
    calibration,
    chosen,
    curve_of,
    decays,
    looked_at,
    selected,
    tolerance_of,
)
from studio.methods.pruning_refit import refit
from studio.methods.pruning_state import (
    CUT,
    TRAINED,
    TUNED,
    Live,
    Pruned,
    first_state,
    loaded,
    measured,
    rebuilt,
    smaller,
    states,
)
from studio.nets.carry import moments, remember
from studio.nets.contributions import Contributions, Wanted, reader_names
from studio.nets.costs import layer_macs, shrunken
from studio.nets.prefix import Prefix, first_call
from studio.nets.spaces import Spaces

TARGETS = ("same_inputs", "original")
ORDERS = ("forward", "backward")
SCORED = 8  # batches that score channels for the Taylor baseline


@dataclass(frozen=True)
class PruneConfig:
    """How a network is pruned.

    `macs` is the share of the multiply-accumulates to keep and `allocation` how layers share the cut; `channels` the
    largest share of its channels a layer keeps, `tolerance` the error (relative to the square of its output) at which a
    layer's selection ends: whichever comes first. With `refit` the readers' weights are solved anew. `examples`
    calibrate, at most `positions` places of each. A layer's selection is shown in `frames`; steps of training come
    before, `between` layers and `after` them.
    """

    method: str = "line_search"
    target: str = "same_inputs"
    order: str = "forward"
    macs: float = 0.5
    channels: float = 1.0
    tolerance: float = 0.0
    allocation: str = "tolerance"
    removal: bool = True
    refit: bool = False
    distance: str = "mse"
    screen: int = 10
    examples: int = 256
    positions: int = 16
    frames: int = 12
    training: int = 400
    between: int = 0
    after: int = 100
    rate: float = 2e-3
    tuning_rate: float = 1e-3
    decay: float = 1e-4
    rates: bool = True


def prune_steps(config: PruneConfig, layers: int) -> int:
    """Return how many steps a run has: training, one look at all layers, the frames and tuning of each, the tuning."""
    return config.training + 1 + layers * (config.frames + config.between) + config.after


def pruning(
    problem: GrowthProblem, config: PruneConfig, network: nn.Module, seed: int, own: bool = True,
    start: Pruned | None = None,
) -> Run[Pruned]:  # fmt: skip
    """Yield the network before the first step, then every step; `start` is a snapshot to go on from.

    `network` is the one to train and prune: it is copied. With `own` it travels in the snapshots; a network from a file
    does not, and is neither trained nor tuned. Raises `ValueError` where the network has nothing to prune, or tuning is
    asked of one that does not travel.
    """
    if not own and (config.training or config.between or config.after or config.refit):
        raise ValueError("a network as large as this one keeps its weights: set all training to 0, refit off")
    spaces = problem.spaces(network)
    if not spaces.growable:
        why = "; ".join(dict.fromkeys(f"{space.name}: {space.frozen}" for space in spaces.spaces if space.frozen))
        raise ValueError(f"this network has no layer whose channels can be removed ({why}): take another")
    total = prune_steps(config, len(spaces.growable))
    now = first_state(total, network, spaces, own) if start is None else replace(start, total=total, outcome="")
    live = _live(problem, config, network, spaces, now)
    if start is None:
        now = measured(problem, live.network, now, TRAINED)
    now = _ended(problem, now)
    yield now
    while now.step < total:
        now = _ended(problem, _next(problem, config, seed, live, now))
        yield now


def _stage(config: PruneConfig, layers: int, step: int) -> tuple[str, int, int]:
    """Return what follows on so many steps: its kind, of which layer in the order, and how many of it are done."""
    if step <= config.training:
        return ("training", 0, step) if step < config.training else ("measuring", 0, 0)
    at, into = divmod(step - config.training - 1, config.frames + config.between)
    if at >= layers:
        return "after", 0, step - (prune_steps(config, layers) - config.after)
    return ("selecting", at, into) if into < config.frames else ("between", at, into - config.frames)


def _next(problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, now: Pruned) -> Pruned:
    """Return the snapshot after the next step."""
    kind, at, into = _stage(config, len(now.sizes), now.step)
    if kind == "measuring":
        return _allotted(problem, config, seed, live, now)
    if kind == "selecting":
        return _selected(problem, config, seed, live, now, at, into)
    steps = {"training": config.training, "between": config.between, "after": config.after}[kind]
    return _trained(problem, config, live, now, steps, into)


def _live(problem: GrowthProblem, config: PruneConfig, given: nn.Module, whole: Spaces, now: Pruned) -> Live:
    """Return what a run holds, from a snapshot."""
    original = copy.deepcopy(given)
    if now.original:
        loaded(original, now.original)
    network, _ = rebuilt(original, whole, now)
    batches = calibration(problem, 0, config.examples)
    live = Live(
        original.eval(), network.eval(), whole, smaller(whole, now.widths), Prefix(whole, batches),
        Prefix(whole, batches), layer_macs(original, problem.example),
        {space: gates.nonzero().flatten() for space, gates in zip(whole.growable, now.gates, strict=True)},
    )  # fmt: skip
    if now.first:
        tuned = live.original if now.step < config.training else network
        live.optimiser, done = _optimiser(tuned, config, 0.0), _stage(config, len(now.sizes), now.step)[2]
        for parameter, first, second in zip(tuned.parameters(), now.first, now.second, strict=True):
            remember(live.optimiser, parameter, done, first, second)
    return live


def _optimiser(network: nn.Module, config: PruneConfig, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=config.decay)


def _trained(problem: GrowthProblem, config: PruneConfig, live: Live, now: Pruned, steps: int, into: int) -> Pruned:
    """Return the snapshot after one step of training, of the whole network or of the pruned one."""
    whole = now.step < config.training
    network = live.original if whole else live.network
    top = config.rate if whole else config.tuning_rate
    if into == 0 or live.optimiser is None:
        live.optimiser = _optimiser(network, config, top)
    inputs, targets = problem.batch(now.trained)
    network.train()
    live.optimiser.param_groups[0]["lr"] = top * (0.02 + 0.49 * (1 + cos(pi * into / steps)))
    live.optimiser.zero_grad()
    value = problem.loss(network(inputs), targets)
    value.backward()
    live.optimiser.step()
    loss = float(value.detach())
    if not loss < float("inf"):
        raise ValueError("rate is too large: the loss is no longer a number; take a smaller learning rate")
    network.eval()
    ends = into + 1 == steps
    first, second = ((), ()) if ends else moments(live.optimiser, network)
    after = replace(
        now, step=now.step + 1, phase="training" if whole else "tuning", trained=now.trained + 1, first=first,
        second=second, losses=torch.cat([now.losses, torch.tensor([loss], dtype=now.losses.dtype)]),
    )  # fmt: skip
    if whole:
        after = replace(after, original=states(network))
        if ends:
            live.network = copy.deepcopy(network)
    else:
        after = replace(after, state=states(network))
    if ends:
        live.optimiser = None
        live.calibration.forget()
        live.reference.forget()
    due = ends or (into + 1) % max(1, steps // 6) == 0
    return measured(problem, network, after, TRAINED if whole else TUNED) if due else after


def _allotted(problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, now: Pruned) -> Pruned:
    """Return the snapshot with the channels that each space may keep, from a look at the original's layers."""
    spaces, curves = live.whole, {}
    for space in spaces.growable:
        groups = spaces[space].groups
        size = spaces[space].size // groups
        if config.allocation == "uniform" or config.macs >= 1:
            curves[space] = Curve(np.array([size]), np.zeros(1), size, groups)
        else:
            curves[space] = curve_of(
                *_looked(config, seed, live.original, spaces, space, live.reference), config.removal
            )
    kept = allotted(curves, config.allocation, config.macs, lambda widths: shrunken(live.shares, spaces, widths))
    most = [
        min(kept[space], max(1, round(config.channels * curve.size))) * curve.groups for space, curve in curves.items()
    ]
    live.reference.forget()
    return replace(now, step=now.step + 1, phase="measuring", allotted=tuple(most))


def _looked(
    config: PruneConfig, seed: int, network: nn.Module, spaces: Spaces, space: int, prefix: Prefix,
    original: Wanted | None = None, positions: int = 0,
) -> tuple[Contributions, np.ndarray]:  # fmt: skip
    generator = generator_from(seed, "positions", space)
    return looked_at(network, spaces, space, prefix, positions or config.positions, generator, original)


def _selected(
    problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, now: Pruned, at: int, into: int
) -> Pruned:
    """Return the snapshot after one frame of a layer's selection; the last one removes what was not chosen."""
    order = range(len(now.sizes)) if config.order == "forward" else range(len(now.sizes) - 1, -1, -1)
    place = order[at]
    space = live.whole.growable[place]
    layer: Layer = live.layer or _layer(problem, config, seed, live, space)
    live.layer = layer
    if into == 0:
        now = begun(now, layer, place)
        if config.rates:
            now = _with_decays(problem, config, seed, live, now, layer)
    most = now.allotted[place] // layer.groups
    ends = into + 1 == config.frames
    after = replace(now, step=now.step + 1, phase="selecting", into=into + 1)
    if most >= len(layer.gram) and not config.tolerance:
        gates, error, reason = torch.ones(now.sizes[place], dtype=torch.float64), 0.0, "kept whole"
    else:
        neurons = max(1, round(most * (into + 1) / config.frames))
        stop = Stop(neurons, tolerance_of(layer, config.tolerance), settle=ends)
        after, path = selected(layer, config.method, stop, config.removal, config.screen, after)
        gates, error = chosen(layer, path, stop.neurons)
        reason = path.reason or "neurons"
    if not ends:
        return after
    return _cut(problem, config, seed, live, after, place, gates, error, reason)


def _cut(
    problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, now: Pruned, place: int, gates: Tensor,
    error: float, reason: str,
) -> Pruned:  # fmt: skip
    """Return the snapshot with a layer's channels removed from the network."""
    space = live.whole.growable[place]
    before = live.network
    if not bool((gates == 1).all()):
        live.network = shrunk(before, live.spaces, {space: gates})[0].eval()
    live.layer = None

    def put(values: tuple, value: object) -> tuple:
        return (*values[:place], value, *values[place + 1 :])

    after = replace(
        now, phase="cutting", gates=put(now.gates, gates), errors=put(now.errors, error),
        reasons=put(now.reasons, reason),
    )  # fmt: skip
    live.spaces = smaller(live.whole, after.widths)
    if config.refit:
        wanted = _original(live) if config.target == "original" else Wanted(before, live.calibration, {})
        generator = generator_from(seed, "refit", space)
        refit(live.network, live.spaces, space, live.calibration, config.positions, generator, wanted)
    live.kept[space] = gates.nonzero().flatten()
    if config.refit or now.state:
        after = replace(after, state=states(live.network))
    return measured(problem, live.network, after, CUT)


def _original(live: Live) -> Wanted:
    """Return the original network as what is to be imitated, without the channels that are gone."""
    return Wanted(live.original, live.reference, live.kept)


def _layer(problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, space: int) -> Layer:
    """Return a space ready to be selected from."""
    aim = _original(live) if config.target == "original" else None
    found, gram = _looked(config, seed, live.network, live.spaces, space, live.calibration, aim)
    order, outputs = None, None
    if config.method in BASELINES:
        order = _order(problem, config, seed, live, space, found.members)
    elif config.method == "global":
        deep = Prefix(live.spaces, live.calibration.batches)
        deep.advance(live.network, first_call(live.spaces, reader_names(live.spaces, space)))
        wanted = live.original if config.target == "original" else live.network
        with torch.no_grad():
            aims = [wanted(batch) for batch in live.calibration.batches]
        outputs = Outputs(live.network, live.spaces, space, found.members, deep, aims, config.distance)
    return Layer(space, found, gram, order, outputs)


def _order(
    problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, space: int, members: Tensor
) -> np.ndarray:
    """Return the order in which a baseline keeps the vertices of a space, by scores of the original network."""
    if live.scores is None:
        batches = (problem.batch(step) for step in range(SCORED))
        generator = generator_from(seed, "random channels")
        live.scores = scores(live.original, live.whole, config.method, batches, problem.loss, generator)
    return baseline_order(live.scores[space], members).numpy()


def _with_decays(
    problem: GrowthProblem, config: PruneConfig, seed: int, live: Live, now: Pruned, layer: Layer
) -> Pruned:
    """Return the snapshot with the decay of a layer's errors for few and for many calibration examples."""
    batches = torch.cat(live.calibration.batches)
    members = layer.found.members
    generator = generator_from(seed, "random order", layer.space)
    orders = {
        name: baseline_order(
            scores(live.network, live.spaces, name, (), problem.loss, generator)[layer.space], members
        ).numpy()
        for name in ("magnitude", "random")
    }

    def gram_of(count: int) -> tuple[Contributions, np.ndarray]:
        if count >= len(batches):
            return layer.found, layer.gram
        few = Prefix(live.spaces, [batches[:count]])
        return _looked(config, seed, live.network, live.spaces, layer.space, few, positions=1)

    points, dimensions, names, kept, errors = decays(gram_of, len(batches), orders, config.removal)
    return replace(
        now, decay_points=points, decay_dimensions=dimensions, decay_rules=names, decay_kept=kept, decay_errors=errors
    )


def _ended(problem: GrowthProblem, now: Pruned) -> Pruned:
    """Return the snapshot as it stands: the last one of a run carries a sentence."""
    if now.step < now.total:
        return now
    before = now.curve[now.curve[:, 1] == TRAINED][-1]
    cost, size, right = (float(value) for value in now.curve[-1, [3, 4, 6]])
    words = (
        f"{sum(now.widths):,} of {sum(now.sizes):,} channels, {size:,.0f} parameters, {cost:,.0f} multiply-accumulates "
        f"({cost / float(before[3]):.0%}): {right:.1%} {problem.test_words}, {float(before[6]):.1%} before"
    )
    ends = ", ".join(f"{reason} ({count})" for reason, count in Counter(now.reasons).items())
    words += f"; selections ended by: {ends}"
    if now.passes:
        words += f", after {now.passes:,} runs over the calibration examples"
    return replace(now, outcome=words)
