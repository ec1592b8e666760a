"""Whole runs of pruning: what they keep, what they say, what they cost, and that any snapshot can be gone on from."""

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import torch
from networks import conv
from torch import Tensor, nn

from studio.core.runs import last, record
from studio.core.seeds import generator_from
from studio.methods.forward_selection import RULES, Stop, centred, ranked, select
from studio.methods.pruning import ORDERS, TARGETS, PruneConfig, prune_steps, pruning
from studio.methods.pruning_baselines import BASELINES
from studio.methods.pruning_budget import ALLOCATIONS
from studio.methods.pruning_cut import gates_of, shrunk
from studio.methods.pruning_layer import METHODS, Layer, chosen
from studio.methods.pruning_state import CUT, pruned_network
from studio.nets.contributions import Contributions, contributions
from studio.nets.costs import macs, parameters
from studio.nets.families import draw, family
from studio.nets.prefix import Prefix
from studio.problems.growth_images import growth_images, raw_images

SMALL = PruneConfig(macs=0.4, examples=24, positions=3, frames=2, training=2, after=1, rates=False, screen=2)


def begun(name, widths, count=60):
    """A problem of few digits and a fresh network for it."""
    problem = growth_images("digits", name, "relu", "average", count, 30, 0)
    return problem, problem.network(widths, generator_from(0, "begun"))


def same(one, two):
    """Whether two snapshots hold the same bytes."""
    pairs = ((getattr(one, field.name), getattr(two, field.name)) for field in fields(one))
    return all(_same(a, b) for a, b in pairs)


def _same(a, b):
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


def probe_loss(problem, network):
    inputs, targets = problem.probe(0)
    with torch.no_grad():
        return float(problem.loss(network(inputs), targets))


@pytest.mark.parametrize(
    "method, target, order", [*product((*RULES, "global"), TARGETS, ORDERS), *product(BASELINES, TARGETS[:1], ORDERS)]
)
def test_runs_end_within_the_budget_with_channels_really_gone(method, target, order):
    problem, network = begun("vgg", (6, 5))
    config = replace(SMALL, method=method, target=target, order=order)
    snapshots = record(pruning(problem, config, network, 0))
    end = snapshots[-1]
    assert [now.step for now in snapshots] == list(range(prune_steps(config, 2) + 1))
    small, edits = pruned_network(problem, end, network)
    spaces = problem.spaces(network)
    assert edits and (small.conv1.out_channels, small.conv2.out_channels) == end.widths
    assert small.conv2.in_channels == end.widths[0] and small.head.in_features == end.widths[1]
    cost, size, loss, right = end.curve[-1, 3:].tolist()
    assert (cost, size) == (macs(small, problem.example), parameters(small))
    assert cost <= 0.4 * macs(network, problem.example)
    assert loss == pytest.approx(probe_loss(problem, small), rel=1e-5)
    assert right == problem.accuracy(small)
    assert all(0 < width <= most for width, most in zip(end.widths, end.allotted, strict=True))
    assert all(np.isfinite(error) and error >= 0 for error in end.errors) and all(end.reasons)
    assert [int(row[2]) for row in end.curve if row[1] == CUT] == ([0, 1] if order == "forward" else [1, 0])
    assert end.passes > 0 if method == "global" else end.passes == 0
    for gates, width in zip(end.gates, end.widths, strict=True):
        assert bool((gates >= 0).all()) and int((gates > 0).sum()) == width
        if method in BASELINES:
            assert set(gates.tolist()) <= {0.0, 1.0}, "baselines give no new weights"
    assert f"{sum(end.widths)} of {sum(spaces.widths)} channels" in end.outcome and not snapshots[-2].outcome


@pytest.mark.parametrize("method", ("line_search", "global"))
def test_any_snapshot_can_be_gone_on_from(method):
    """Convolutions with batch norms, trained between layers and after them: the same bytes, whichever it is."""
    problem, network = begun("resnet", (4, 4, 6, 8)) if method == "line_search" else begun("vgg", (4, 3))
    config = replace(SMALL, method=method, macs=0.3, examples=6, between=2, after=2)
    snapshots = record(pruning(problem, config, network, 0))
    for start in snapshots[::4] if method == "line_search" else snapshots[1::2]:
        run = pruning(problem, config, network, 0, True, start)
        assert same(next(run), start)
        for wanted in snapshots[start.step + 1 :][:2]:
            assert same(next(run), wanted), f"from {start.step}, at {wanted.step}"
    again = pruning(problem, config, network, 0, True, snapshots[len(snapshots) // 2])
    assert same(last(again), snapshots[-1])


def test_the_network_of_a_snapshot_is_the_live_one():
    """Its loss is the one that was measured live, at every cut and every measurement after it."""
    problem, network = begun("resnet", (4, 4, 6, 8))
    config = replace(SMALL, between=2, after=2)
    rows = 1
    for now in pruning(problem, config, network, 0):
        if len(now.curve) > rows and now.step > config.training:
            found, _ = pruned_network(problem, now, network)
            assert float(now.curve[-1, 5]) == pytest.approx(probe_loss(problem, found), rel=1e-6)
            assert float(now.curve[-1, 4]) == parameters(found)
        rows = len(now.curve)
    assert rows >= 8


def test_tied_channels_stand_and_fall_together():
    """What is added to each other keeps the same channels: the stream's layers have one width, and no other."""
    problem, network = begun("resnet", (6, 5, 7, 8))
    end = last(pruning(problem, SMALL, network, 0))
    small, _ = pruned_network(problem, end, network)
    spaces = problem.spaces(network)
    for space, width, gates in zip(spaces.growable, end.widths, end.gates, strict=True):
        assert width < spaces[space].size
        for axis in spaces.along(space, "writer"):
            weight = small.get_parameter(axis.tensor)
            assert weight.shape[axis.axis] == width
            before = pruned_network(problem, replace(end, gates=tuple(map(torch.ones_like, end.gates)), state=()),
                                    network)[0].get_parameter(axis.tensor)  # fmt: skip
            assert before.shape[axis.axis] == len(gates)
    stream = [small.conv0.out_channels, small.blocks[0].conv1.in_channels, small.blocks[0].conv2.out_channels]
    assert len(set(stream)) == 1
    assert small.blocks[1].conv2.out_channels == small.blocks[1].shortcut.out_channels == small.head.in_features


class Late(nn.Module):
    """A batch norm between the gate and the layer that reads it, and nothing behind that layer."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.norm = conv(1, 20), nn.ReLU(), nn.BatchNorm2d(20)
        self.flat, self.head = nn.Flatten(), nn.Linear(1280, 10)

    def forward(self, x):
        return self.head(self.flat(self.norm(self.act(self.first(x)))))


def drawn_late():
    generator, network = torch.Generator().manual_seed(0), Late()
    for part in (*network.parameters(), network.norm.running_mean):
        part.data = 0.2 * torch.randn(part.shape, generator=generator)
    network.norm.running_var.data = 0.5 + torch.rand(20, generator=generator)
    return network.eval()


@pytest.mark.parametrize("method", METHODS)
def test_errors_said_are_errors_made(method):
    """A layer's error is the output's change where nothing follows: behind a batch norm, and with the factor N.

    Without it the readers would be given nearly nothing, and the error be 1.
    """
    problem, network = growth_images("digits", "vgg", "relu", "average", 60, 30, 0), drawn_late()
    config = replace(SMALL, method=method, macs=1.0, channels=0.6, positions=64, training=0, after=0)
    end = last(pruning(problem, config, network, 0))
    small, _ = pruned_network(problem, end, network)
    inputs = problem.batch(0)[0][:24]
    with torch.no_grad():
        bias, aim, made = network.head.bias.detach(), network(inputs), small(inputs)
    error = float((made - aim).square().sum() / (aim - bias).square().sum())
    assert end.errors[0] == pytest.approx(error, rel=2e-3)
    if method not in BASELINES:
        assert float(end.gates[0].sum()) == pytest.approx(20) and error < 0.3
        forgotten, _ = shrunk(network, problem.spaces(network), {0: end.gates[0] / 20})
        with torch.no_grad():
            assert float((forgotten(inputs) - aim).square().sum() / (aim - bias).square().sum()) > 0.8


def test_what_ended_a_layer_is_said():
    problem, network = begun("mlp", (20, 16))
    config = replace(SMALL, training=0, after=0, frames=3)
    assert last(pruning(problem, replace(config, macs=1.0), network, 0)).reasons == ("kept whole", "kept whole")
    end = last(pruning(problem, replace(config, macs=1.0, tolerance=0.3), network, 0))
    assert end.reasons == ("tolerance", "tolerance") and all(0 < error <= 0.3 + 1e-9 for error in end.errors)
    assert all(width < size for width, size in zip(end.widths, end.sizes, strict=True))
    end = last(pruning(problem, replace(config, macs=1.0, channels=0.25), network, 0))
    assert all(reason.startswith("neurons") for reason in end.reasons) and end.allotted == (5, 4)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_both_allocations_meet_the_budget(allocation):
    problem, network = begun("vgg", (6, 6))
    end = last(pruning(problem, replace(SMALL, macs=0.2, allocation=allocation), network, 0))
    assert float(end.curve[-1, 3]) <= 0.2 * macs(network, problem.example)
    with pytest.raises(ValueError, match="cannot be reached with one channel a layer: allow more"):
        last(pruning(problem, replace(SMALL, macs=0.001, allocation=allocation), network, 0))


def test_networks_from_files_stay_where_they_are():
    """A network that does not travel is in no snapshot, is pruned all the same, and is not trained."""
    problem, network = begun("vgg", (6, 5))
    config = replace(SMALL, training=0, after=0)
    before = [part.clone() for part in network.state_dict().values()]
    snapshots = record(pruning(problem, config, network, 0, False))
    end = snapshots[-1]
    assert end.original == end.state == ()
    small, _ = pruned_network(problem, end, network)
    assert float(end.curve[-1, 5]) == pytest.approx(probe_loss(problem, small), rel=1e-6)
    middle = pruning(problem, config, network, 0, False, snapshots[3])
    assert same(last(middle), end)
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="set all training to 0"):
        next(pruning(problem, SMALL, network, 0, False))


def test_networks_without_layers_to_prune_are_refused():
    problem, _ = begun("mlp", (4,))
    with pytest.raises(ValueError, match=r"no layer whose channels can be removed .*: take another"):
        next(pruning(problem, SMALL, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0))


def test_silent_neurons_are_dropped_whatever_their_weight():
    """A neuron silent on all examples is the origin of the hull; multiplied it could only do harm on others."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(6, 4))
    rows[:3] = 0
    raw = torch.from_numpy(rows @ rows.T)
    found = Contributions(torch.arange(6)[:, None], raw, torch.zeros(6).double(), 0.0, float(raw.mean()), 4)
    gram = centred(raw.numpy())
    path = select(gram, "fully_corrective", Stop())
    assert (path.weights()[:3] > 0).any(), "the origin is needed to reach the mean"
    gates, error = chosen(Layer(0, found, gram, None, None), path, 6)
    assert not gates[:3].any() and error <= 1e-12
    assert np.allclose(gates.numpy() @ rows, rows.sum(axis=0))


def test_a_quarter_of_the_width_is_a_fraction_of_the_cost():
    """G12: parameters are those of the kept sizes, and nearly all multiply-accumulates are gone with both sides."""
    problem, network = begun("mlp", (64, 48))
    config = replace(SMALL, macs=1.0, channels=0.25, training=0, after=0)
    end = last(pruning(problem, config, network, 0))
    small, _ = pruned_network(problem, end, network)
    one, two = end.widths
    assert one <= 16 and two <= 12
    assert parameters(small) == 65 * one + (one + 1) * two + 10 * (two + 1)
    assert macs(small, problem.example) == 64 * one + one * two + 10 * two
    assert macs(small, problem.example) < 0.25 * macs(network, problem.example)


@pytest.fixture(scope="module")
def digits():
    """A perceptron 64-256-10 trained on 1,200 digits, its spaces, and its contributions on them."""
    problem = raw_images("digits", "mlp", "relu", "average", 1200, 128, 2)
    network = draw(family("mlp", (1, 8, 8), (256,), 10, "relu"), generator_from(2, "g9"))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(300):
        inputs, targets = problem.batch(step)
        optimiser.zero_grad()
        problem.loss(network(inputs), targets).backward()
        optimiser.step()
    spaces = problem.spaces(network)
    prefix = Prefix(spaces, [problem.inputs])
    found = contributions(network, spaces, spaces.growable[0], prefix, 1, generator_from(0, "places"))
    assert problem.accuracy(network) >= 0.97 and len(problem.test_labels) == 597
    return problem, network.eval(), spaces, found


def test_forty_of_256_neurons_still_read_digits(digits):
    """G9: without tuning, and far ahead of as many neurons by magnitude or at random, rescaled."""
    problem, network, spaces, found = digits
    gram, stop = centred(found.gram.numpy()), Stop(neurons=40, settle=True)

    def right(path):
        gates = gates_of(found.members, path.weights(path.at(40)))
        small, _ = shrunk(network, spaces, {spaces.growable[0]: gates})
        assert small.head.in_features <= 40
        return problem.accuracy(small)

    greedy = {rule: right(select(gram, rule, stop)) for rule in RULES}
    norms = network.layer1.weight.detach().norm(dim=1)
    magnitude = right(ranked(gram, norms.argsort(descending=True).numpy(), stop))
    orders = [np.random.default_rng(seed).permutation(256) for seed in range(5)]
    chance = float(np.median([right(ranked(gram, order, stop)) for order in orders]))
    assert greedy["line_search"] >= 0.95 and greedy["fully_corrective"] >= 0.95
    assert greedy["line_search"] >= max(magnitude, chance) + 0.25, (greedy, magnitude, chance)
