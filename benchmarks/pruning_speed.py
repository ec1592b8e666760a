"""What pruning costs and what comes of it: against running every candidate, and against torch-pruning.

Seconds are those of the process on one thread; ratios are of pairs taken in turns, with medians and quartiles.
"""

__all__ = ["latency", "speed"]

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.pruning_peer import at_ratio, ratio_for
from studio.core.seeds import generator_from
from studio.methods.forward_selection import Stop, centred, select
from studio.methods.pruning_budget import Curve, allotted
from studio.methods.pruning_cut import gates_of, shrunk
from studio.methods.pruning_refit import refit
from studio.methods.pruning_state import smaller
from studio.nets.contributions import Wanted, contributions, gated
from studio.nets.costs import layer_macs, macs, shrunken
from studio.nets.families import draw, family
from studio.nets.prefix import Prefix, first_call
from studio.nets.spaces import Spaces, trace
from studio.nets.torchvision_compat import import_torchvision
from studio.problems.growth_images import GrowthImages, growth_images

# Families of networks on the digits, with widths and the share of the channels that all ways of selecting keep.
CONTESTS = {"mlp": ((256,), 0.25), "vgg": ((32, 32, 64, 64), 0.5), "resnet": ((16, 16, 32, 32), 0.5)}
SEEDS = (0, 1, 2)
TRAINING, TUNING = 400, 100
BATCH, CANDIDATES = 128, 50  # of the released code
EXAMPLES, POSITIONS = 256, 16  # of PruneConfig
TURNS = 40
Made = TypeVar("Made")


def speed() -> dict[str, object]:
    """Return how much faster selection on Gram matrices is than running candidates, and the accuracy it costs.

    The two headline figures are those of the selection with the readers refitted, both in one run; `plain` are those of
    the paper's re-weighting alone.
    """
    torch.set_num_threads(1)
    figures: dict[str, object] = {"selection_seeds": len(SEEDS)}
    ratios: dict[str, list[float]] = {"": [], "_plain": []}
    gaps: dict[str, list[float]] = {"": [], "_plain": []}
    for name, (widths, share) in CONTESTS.items():
        rounds = [_contest(name, widths, share, seed) for seed in SEEDS]
        found = {key: [each[key] for each in rounds] for key in rounds[0]}
        for kind, over, gap in (("", "candidates_over_refitted", "gap_points_refitted"),
                                ("_plain", "candidates_over_gram", "gap_points")):  # fmt: skip
            ratios[kind].append(statistics.median(found[over]))
            gaps[kind].append(statistics.median(found[gap]))
        for key, values in found.items():
            digits = 4 if "seconds" in key else 2
            figures[f"{key}_{name}"] = round(statistics.median(values), digits)
            figures[f"{key}_{name}_range"] = [round(min(values), digits), round(max(values), digits)]
        print(f"  {name}: {ratios[''][-1]:.0f} times as fast, {gaps[''][-1]:.2f} points", flush=True)
    for kind in ratios:
        figures[f"gram_speedup{kind}"] = round(min(ratios[kind]), 1)
        figures[f"gram_accuracy_gap_points{kind}"] = round(max(gaps[kind]), 2)
    return figures


def latency() -> dict[str, object]:
    """Return the time of a pass through our pruned networks over that through torch-pruning's, at equal MACs."""
    torch.set_num_threads(1)
    figures: dict[str, object] = {"latency_pairs": TURNS}
    worst = {"uniform": 0.0, "tolerance": 0.0}
    for name, (network, example) in _subjects().items():
        for allocation in worst:
            ratio, found = _latency(network, example, allocation)
            worst[allocation] = max(worst[allocation], ratio)
            figures |= {f"{key}_{name}_{allocation}": value for key, value in found.items()}
            print(f"  {name}, {allocation}: {ratio:.2f} of torch-pruning's time", flush=True)
    figures["latency_ratio_torch_pruning_tolerance"] = round(worst["tolerance"], 3)
    return figures | {"latency_ratio_torch_pruning": round(worst["uniform"], 3)}


def _contest(name: str, widths: tuple[int, ...], share: float, seed: int) -> dict[str, float]:
    """Return the times of all ways to select, and the accuracy after each, with one seed."""
    problem = growth_images("digits", name, "relu", "average", 1024, BATCH, seed)
    network = _fitted(problem, problem.network(widths, generator_from(seed, "network")), TRAINING, 2e-3)
    spaces = problem.spaces(network)
    kept = {space: max(1, int(share * spaces[space].size)) for space in spaces.growable}
    inputs = [problem.batch(step)[0] for step in range(EXAMPLES // BATCH)]
    made: dict[str, nn.Module] = {}
    times: dict[str, list[float]] = {"gram": [], "refitted": [], "candidates": [], "exhaustive": []}
    ways: dict[str, Callable[[], nn.Module]] = {
        "gram": lambda: _imitated(network, trace(network, problem.example), inputs, kept),
        "refitted": lambda: _imitated(network, trace(network, problem.example), inputs, kept, True),
        "candidates": lambda: _by_candidates(network, spaces, problem, kept, CANDIDATES, seed),
        "exhaustive": lambda: _by_candidates(network, spaces, problem, kept, 0, seed),
    }
    quick = ("gram", "refitted")
    every = ("exhaustive", *quick) if max(spaces.widths) > 2 * CANDIDATES else ()
    for way in (*quick, *quick, "candidates", *quick, *every):
        spent, made[way] = _timed(ways[way])
        times[way].append(spent)
    spent = {way: statistics.median(values) for way, values in times.items() if values}
    right = {way: 100 * problem.accuracy(each) for way, each in made.items()}
    tuned = {way: 100 * problem.accuracy(_fitted(problem, each, TUNING, 1e-3)) for way, each in made.items()}
    return {
        "candidates_over_gram": spent["candidates"] / spent["gram"],
        "candidates_over_refitted": spent["candidates"] / spent["refitted"],
        "gap_points": right["candidates"] - right["gram"],
        "gap_points_refitted": right["candidates"] - right["refitted"],
        "gap_points_tuned": tuned["candidates"] - tuned["gram"],
        "accuracy_whole": 100 * problem.accuracy(network), "accuracy_gram": right["gram"],
        "accuracy_candidates": right["candidates"], "gram_cpu_seconds": spent["gram"],
        **({"exhaustive_over_gram": spent["exhaustive"] / spent["gram"],
            "gap_points_exhaustive": right["exhaustive"] - right["gram"]} if every else {}),
    }  # fmt: skip


def _fitted(problem: GrowthImages, network: nn.Module, steps: int, rate: float) -> nn.Module:
    """Return the network after so many steps of training, in evaluation mode."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        inputs, labels = problem.batch(step)
        optimiser.zero_grad()
        problem.loss(network(inputs), labels).backward()
        optimiser.step()
        falling.step()
    return network.eval()


def _imitated(
    network: nn.Module, spaces: Spaces, batches: list[Tensor], kept: Mapping[int, int], refitted: bool = False
) -> nn.Module:
    """Return the smaller network, layer by layer: Gram matrix, selection, cut. `kept` are channels a space.

    With `refitted` the weights of what reads a space are then solved anew towards the outputs of the whole network.
    """
    prefix, whole, left, now = Prefix(spaces, batches), Prefix(spaces, batches), spaces, network
    widths, channels = list(spaces.widths), {}
    for number, space in enumerate(spaces.growable):
        prefix.advance(now, first_call(spaces, spaces[space].writers))
        found = contributions(now, left, space, prefix, POSITIONS, generator_from(0, "positions", space))
        stop = Stop(max(1, kept[space] // found.members.shape[1]))
        path = select(centred(found.gram.numpy()), "line_search", stop)
        gates = gates_of(found.members, path.weights(path.at(stop.neurons)))
        now = shrunk(now, left, {space: gates})[0].eval()
        widths[number] = int((gates > 0).sum())
        left = smaller(spaces, tuple(widths))
        if refitted:
            wanted = Wanted(network, whole, channels)
            refit(now, left, space, prefix, POSITIONS, generator_from(0, "refit", space), wanted)
            channels[space] = gates.nonzero().flatten()
    return now


@torch.no_grad()
def _by_candidates(
    network: nn.Module, spaces: Spaces, problem: GrowthImages, kept: Mapping[int, int], limit: int, seed: int
) -> nn.Module:
    """Return the smaller network chosen as the released code chooses: by the loss with each candidate put in.

    A step takes a fresh batch and `limit` random candidates that are not in yet (0: all of them), each with the step
    1 / (n + 1); the whole network is run for each. Layers before keep their gates, layers behind are whole.
    """
    gates = {space: torch.ones(spaces[space].size) for space in spaces.growable}
    chance, step = generator_from(seed, "candidates"), 0
    with gated(network, spaces, gates):
        for space in spaces.growable:
            size = spaces[space].size
            a, off = torch.zeros(size), torch.ones(size, dtype=torch.bool)
            for number in range(kept[space]):
                inputs, labels = problem.batch(step)
                open_ = off.nonzero().flatten()
                tried = open_[torch.randperm(len(open_), generator=chance)][: limit or None].tolist()
                losses = []
                for k in tried:
                    gates[space] = size * number / (number + 1) * a
                    gates[space][k] += size / (number + 1)
                    losses.append(float(problem.loss(network(inputs), labels)))
                best = tried[losses.index(min(losses))]
                a, off[best] = a * number / (number + 1), False
                a[best] += 1 / (number + 1)
                step += 1
            gates[space] = size * a
    return shrunk(network, spaces, {space: gate.double() for space, gate in gates.items()})[0].eval()


def _subjects() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return networks with random weights and a batch of pictures for each."""
    generator = generator_from(0, "latency")
    torch.manual_seed(0)
    small, large = (torch.randn(16, 3, side, side, generator=generator) for side in (32, 64))
    resnet = draw(family("resnet", (3, 32, 32), (16, 16, 32, 32, 64, 64), 10, "relu"), generator)
    mobilenet = draw(family("mobilenet", (3, 32, 32), (32, 32, 64, 64, 128), 10, "relu"), generator)
    resnet18 = import_torchvision().models.resnet18(weights=None)
    return {
        "resnet": (resnet.eval(), small), "mobilenet": (mobilenet.eval(), small), "resnet18": (resnet18.eval(), large),
    }  # fmt: skip


def _latency(network: nn.Module, example: Tensor, allocation: str) -> tuple[float, dict[str, object]]:
    """Return the ratio of the times of a pass, ours over theirs, at half the MACs, and what else there is to say."""
    own, ours = _timed(lambda: _halved(network, example, allocation))
    budget = macs(ours, example)
    ratio = ratio_for(network, example, budget)
    peers, theirs = _timed(lambda: at_ratio(network, example, ratio))
    pairs = []
    with torch.no_grad():
        for turn in range(TURNS + 3):
            first, second = (ours, theirs) if turn % 2 else (theirs, ours)
            spent = _timed(lambda each=first: each(example))[0], _timed(lambda each=second: each(example))[0]
            pairs.append(spent if turn % 2 else spent[::-1])
    ratios = [mine / other for mine, other in pairs[3:]]
    median = statistics.median(ratios)
    return median, {
        "latency_ratio": round(median, 3), "latency_ratio_quartiles": _quartiles(ratios),
        "macs_ours_over_theirs": round(budget / macs(theirs, example), 4),
        "macs_left": round(budget / macs(network, example), 4),
        "pruning_time_ours_over_theirs": round(own / peers, 2),
        **{f"widths_{who}": [each.out_channels for each in network.modules() if isinstance(each, nn.Conv2d)]
           for who, network in (("ours", ours), ("theirs", theirs))},
    }  # fmt: skip


def _halved(network: nn.Module, example: Tensor, allocation: str) -> nn.Module:
    """Return the network pruned by us to half its MACs: graph, allocation, Gram matrices, selection and cuts."""
    spaces = trace(network, example[:2])
    curves, batches = {}, [example]
    prefix = Prefix(spaces, batches)
    for space in spaces.growable:
        size, counts, errors = spaces[space].size, np.array([spaces[space].size]), np.zeros(1)
        if allocation == "tolerance":
            prefix.advance(network, first_call(spaces, spaces[space].writers))
            found = contributions(network, spaces, space, prefix, POSITIONS, generator_from(0, "positions", space))
            counts, errors = select(centred(found.gram.numpy()), "line_search", Stop(size)).best()
            errors = errors / found.energy
        curves[space] = Curve(counts, errors, size)
    layers = layer_macs(network, example[:1])
    kept = allotted(curves, allocation, 0.5, lambda widths: shrunken(layers, spaces, widths))
    return _imitated(network, spaces, batches, kept)


def _timed(work: Callable[[], Made]) -> tuple[float, Made]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def _quartiles(values: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(values, n=4)[::2]]
