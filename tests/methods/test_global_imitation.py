"""Global imitation: slopes against differences, and screening against running every neuron."""

import numpy as np
import pytest
import torch
from networks import conv, pictures, settled
from torch import nn

from studio.core.seeds import generator_from
from studio.methods.forward_selection import Stop, moved
from studio.methods.global_imitation import DISTANCES, Outputs, imitate_outputs, taylor_slopes
from studio.methods.pruning_cut import gates_of, shrunk
from studio.nets.families import draw, family
from studio.nets.prefix import Prefix, first_call
from studio.nets.spaces import trace
from studio.problems.digits import labelled

KEPT = 16


def outputs_of(network, inputs, distance="mse", place=0, batches=2):
    """What a space of a network makes of some batches, beside what the whole makes of them."""
    spaces = trace(network, inputs[:2])
    space = spaces.growable[place]
    prefix = Prefix(spaces, inputs.chunk(batches))
    prefix.advance(network, first_call(spaces, spaces[space].writers))
    with torch.no_grad():
        aims = [network(batch) for batch in inputs.chunk(batches)]
    groups = spaces[space].groups
    members = torch.arange(spaces[space].size).view(groups, -1).T.contiguous()
    return Outputs(network, spaces, space, members, prefix, aims, distance)


@pytest.fixture(scope="module")
def digits():
    """A perceptron 64-128-128-10 trained on digits, and 128 of the pictures."""
    data = labelled("digits")
    inputs, labels = data.inputs.double().view(-1, 1, 8, 8), data.labels
    network = draw(family("mlp", (1, 8, 8), (128, 128), 10, "relu"), generator_from(0, "global")).double()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs[:1000]), labels[:1000])
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert float((network(inputs[1000:]).argmax(dim=1) == labels[1000:]).double().mean()) > 0.85
    return network.eval(), inputs[:128]


@pytest.fixture(scope="module")
def paths(digits):
    """The path of running every neuron of the first layer at every step, and those of screening."""
    network, inputs = digits
    outputs = outputs_of(network, inputs[:64], batches=1)
    found = {screen: imitate_outputs(outputs, Stop(neurons=KEPT), screen, False) for screen in (0, 10)}
    return outputs, found


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("place", (0, 1))
def test_slopes_are_the_central_differences(digits, distance, place):
    """G11: the way from the weights to every vertex, within 1e-3."""
    network, inputs = digits
    outputs = outputs_of(network, inputs[:32], distance, place)
    random = np.random.default_rng(0)
    a = random.dirichlet(np.ones(128)) * (random.random(128) < 0.5)
    a /= a.sum()
    slopes = taylor_slopes(outputs, a)
    for k in range(0, 128, 8):
        h = 1e-4

        def at(step, k=k):
            return outputs.error((1 - step) * a + step * np.eye(128)[k])

        difference = (at(h) - at(-h)) / (2 * h)
        assert difference == pytest.approx(slopes[k], rel=1e-3, abs=1e-3 * np.abs(slopes).max())
    assert a @ slopes == pytest.approx(0, abs=1e-9 * np.abs(slopes).max()), "to stay is no change"


@pytest.mark.parametrize("distance", DISTANCES)
def test_errors_are_those_of_the_smaller_network(distance):
    """Behind a batch norm, in a layer whose channels come in groups: what is measured is what is cut."""
    network = settled(nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4)
    ))  # fmt: skip
    inputs = pictures(12)
    outputs = outputs_of(network, inputs, distance)
    path = imitate_outputs(outputs, Stop(neurons=3), 0)
    assert path.kept[-1] == 3 and outputs.members.shape == (4, 2)
    for step in range(len(path)):
        small, _ = shrunk(network, outputs.spaces, {outputs.space: gates_of(outputs.members, path.weights(step))})
        with torch.no_grad():
            made, aim = small(inputs), network(inputs)
        if distance == "mse":
            wanted = (made - aim).square().sum(dim=1).mean()
        else:
            wanted = (aim.softmax(1) * (aim.log_softmax(1) - made.log_softmax(1))).sum(dim=1).mean()
        assert path.errors[step] == pytest.approx(float(wanted), rel=1e-6)
    assert outputs.error(np.full(4, 0.25)) <= 1e-20, "equal weights are the network itself"


def test_the_best_neuron_is_mostly_among_the_ten_steepest(paths):
    """G11, on the path of running all: in 60 % of its steps or more."""
    outputs, found = paths
    whole, inside = found[0], []
    for step in range(1, len(whole)):
        before = whole.weights(step - 1)
        slopes = taylor_slopes(outputs, before)
        allowed = (before > 0) | (whole.kept[step - 1] < KEPT)
        inside.append(int((slopes[allowed] < slopes[whole.touched[step]]).sum()) < 10)
    assert len(inside) >= KEPT and np.mean(inside) >= 0.6


def test_ten_candidates_do_as_well_as_all(paths):
    """G11: at most 1.25 times the error of running every neuron, for a fraction of the runs."""
    _, found = paths
    assert max(found[0].kept) == max(found[10].kept) == KEPT
    assert found[10].errors[-1] <= 1.25 * found[0].errors[-1]
    assert found[10].passes < found[0].passes / 3


def test_paths_go_down_on_the_simplex(paths):
    for path in paths[1].values():
        assert (np.diff(path.errors) < 0).all()
        for step in range(len(path)):
            a = path.weights(step)
            assert abs(a.sum() - 1) <= 1e-12 and (a >= 0).all() and np.count_nonzero(a) == path.kept[step]
        assert path.reason == "neurons"


def test_runs_of_the_network_are_counted(digits, monkeypatch):
    network, inputs = digits
    outputs, runs = outputs_of(network, inputs[:16]), []
    output = Prefix.output
    monkeypatch.setattr(Prefix, "output", lambda self, *args: runs.append(1) or output(self, *args))
    path = imitate_outputs(outputs, Stop(neurons=4), 5, True, None, (3, 9, 20))
    errors = path.passes - 2 * len(path)  # of the passes of a slope, that back runs no network again
    assert path.touched[0] in (3, 9, 20)
    assert len(runs) == 2 * (errors + len(path)), "two batches each"


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_planted_bad_neuron_is_removed(digits, distance):
    """A neuron that is in the weights and should not be is taken out by a step of its own, where that is allowed."""
    network, inputs = digits
    outputs = outputs_of(network, inputs[:32], distance)
    alone = [outputs.error(np.eye(128)[k]) for k in range(128)]
    bad = int(np.argmax(alone))
    path = imitate_outputs(outputs, Stop(neurons=6), 10, False)
    a = moved(path.weights(), bad, 0.3)
    planted = type(path)(
        128, (bad,), (0.3,), ("add",), (outputs.error(a),), (int((a > 0).sum()),), (np.flatnonzero(a),), (a[a > 0],)
    )
    cleaned = imitate_outputs(outputs, Stop(neurons=7, steps=8), 10, True, planted)
    assert (bad, "remove") in zip(cleaned.touched, cleaned.kinds, strict=True)
    assert cleaned.weights()[bad] == 0.0 and cleaned.errors[-1] < planted.errors[0]
    held = imitate_outputs(outputs, Stop(neurons=7, steps=8), 10, False, planted)
    assert set(held.kinds) <= {"add", "reweight"}


@pytest.mark.parametrize("screen", (0, 6))
def test_a_path_gone_on_with_is_the_path_of_one_run(digits, screen):
    network, inputs = digits
    outputs = outputs_of(network, inputs[:16])
    stop = Stop(neurons=6, steps=4 if screen == 0 else 100)
    whole = imitate_outputs(outputs, stop, screen, True, None, range(8))
    part = imitate_outputs(outputs, Stop(neurons=6, steps=2), screen, True, None, range(8))
    assert (len(part), part.reason) == (2, "steps")
    again = imitate_outputs(outputs, stop, screen, True, part)
    assert again.touched == whole.touched and again.errors == whole.errors and again.kinds == whole.kinds
    assert again.reason == whole.reason
    assert part.passes < again.passes == whole.passes


def test_what_ends_a_path_is_said(digits):
    network, inputs = digits
    outputs = outputs_of(network, inputs[:16])
    path = imitate_outputs(outputs, Stop(tolerance=0.5), 10, True, None, range(8))
    assert path.reason == "tolerance" and path.errors[-1] <= 0.5 * path.errors[0] < path.errors[-2]
    assert imitate_outputs(outputs, Stop(steps=1), 10, True, None, (0,)).reason == "steps"
    tiny = settled(nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.ReLU(), nn.Linear(1, 4)))
    path = imitate_outputs(outputs_of(tiny, pictures(6)), Stop(), 10)
    assert path.kept == (1,) and path.errors[0] <= 1e-20 and path.reason


def test_unknown_distances_are_refused(digits):
    network, inputs = digits
    with pytest.raises(ValueError, match="distance must be one of mse, kl"):
        imitate_outputs(outputs_of(network, inputs[:4], "angle"), Stop(), 10)
