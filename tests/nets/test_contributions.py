"""Gram matrices of contributions against single channels run alone, on everything that reads channels."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net, conv, difference, pictures, settled
from random_networks import REPEATABLE, drawn
from torch import nn

from studio.methods.forward_selection import Stop, centred, select
from studio.methods.pruning_cut import gates_of, shrunk
from studio.nets.contributions import Wanted, contributions, gated
from studio.nets.modes import evaluating
from studio.nets.prefix import Prefix, first_call
from studio.nets.spaces import trace

ALL = 10_000  # more positions than any picture here has


def generator():
    return torch.Generator().manual_seed(0)


def reader_outputs(network, spaces, space, inputs, gates):
    """Every value that the readers of a space make of gated channels, without what they make of none."""
    made = []
    readers = dict.fromkeys(axis.module for axis in spaces.along(space, "reader"))

    def note(module, given, output):
        own = module.forward(given[0])
        made.append(own.flatten())

    handles = [network.get_submodule(name).register_forward_hook(note) for name in readers]
    try:
        with gated(network, spaces, {space: gates}), torch.no_grad():
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return made


def given_to_readers(network, spaces, space, inputs):
    """What every reader of a space is given, call by call."""
    given = {}
    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: given.setdefault(name, []).append(args[0].clone())
        )
        for name in dict.fromkeys(axis.module for axis in spaces.along(space, "reader"))
    ]
    with torch.no_grad():
        network(inputs)
    for handle in handles:
        handle.remove()
    return given


def apart(network, spaces, space, inputs, gates):
    """What readers make of gated channels, every reader given what it is given in the network without gates."""
    given = given_to_readers(network, spaces, space, inputs)
    with gated(network, spaces, {space: gates}), torch.no_grad():
        return torch.cat([network.get_submodule(name)(x).flatten() for name, calls in given.items() for x in calls])


def slow_contributions(network, spaces, space, inputs):
    """The contribution of every channel alone, each reader given the same values as in the whole network."""
    size = spaces[space].size
    none = apart(network, spaces, space, inputs, torch.zeros(size))
    return torch.stack([apart(network, spaces, space, inputs, one) - none for one in torch.eye(size)])


NETWORKS = {
    "perceptron": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 4)),
    "convolution": lambda: nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5), nn.Flatten(), nn.Linear(320, 4)),
    "stride and padding": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=2, dilation=2), nn.Flatten(), nn.LazyLinear(4)
    ),
    "circular padding": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(320, 4)
    ),
    "same padding": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding="same", dilation=2), nn.Flatten(), nn.Linear(320, 4)
    ),
    "batch norm behind the gate": lambda: nn.Sequential(
        conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 5), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
        nn.Linear(320, 4),
    ),
    "batch norm before the reader": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.BatchNorm2d(6), conv(6, 5), nn.Flatten(), nn.Linear(320, 4)
    ),
    "depthwise": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), conv(6, 6, groups=6), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Flatten(),
        nn.Linear(320, 4),
    ),
    "groups": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), conv(6, 8, groups=2), nn.ReLU(), conv(8, 4, groups=4), nn.Flatten(), nn.Linear(256, 4)
    ),
    "transposed": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.ConvTranspose2d(6, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(20, 4),
    ),
    "residual": lambda: Net(
        lambda self, x: self.head(torch.relu(self.b(torch.relu(self.a(y := self.stem(x)))) + y).mean((2, 3))),
        stem=conv(3, 6), a=conv(6, 5), b=conv(5, 6), head=nn.Linear(6, 4),
    ),
    "concatenated": lambda: Net(
        lambda self, x: self.head(self.mix(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1)).mean((2, 3))),
        a=conv(3, 4), b=conv(3, 5), mix=conv(9, 6), head=nn.Linear(6, 4),
    ),
    "a shared reader": lambda: Net(
        lambda self, x: self.head(torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.a(x)))))).mean((2, 3))),
        a=conv(3, 6), twice=conv(6, 6), head=nn.Linear(6, 4),
    ),
}  # fmt: skip


def made(name):
    network = NETWORKS[name]()
    with torch.no_grad():
        network(pictures(2, dtype=torch.float32))
    return settled(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_gram_matrices_are_those_of_channels_alone(name):
    network, inputs = made(name), pictures(5)
    spaces = trace(network, inputs)
    assert spaces.growable
    for space in spaces.growable:
        found = contributions(network, spaces, space, Prefix(spaces, [inputs[:2], inputs[2:]]), ALL, generator())
        own = slow_contributions(network, spaces, space, inputs) * len(found.members)
        own = own[found.members].sum(dim=1)
        assert torch.allclose(found.gram, own @ own.T, rtol=1e-9, atol=1e-9 * float(found.gram.abs().max()))
        assert found.energy == pytest.approx(float(own.mean(dim=0).square().sum()), rel=1e-9)
        assert found.values == own.shape[1]
        assert found.members.flatten().sort().values.tolist() == list(range(spaces[space].size))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_original_is_imitated_with_what_was_lost_before(name):
    network, inputs = made(name), pictures(5)
    spaces = trace(network, inputs)
    first, space = spaces.growable[0], spaces.growable[-1]
    gate = 1 + 0.3 * torch.randn(spaces[first].size, generator=generator(), dtype=torch.float64)
    before, _ = shrunk(network, spaces, {first: gate})
    aims = reader_outputs(network, spaces, space, inputs, torch.ones(spaces[space].size))
    found = contributions(
        before, spaces, space, Prefix(spaces, [inputs]), ALL, generator(), Wanted(network, Prefix(spaces, [inputs]), {})
    )
    weights = np.random.default_rng(0).dirichlet(np.ones(len(found.members)))
    gates = gates_of(found.members, weights)
    if first != space:
        reached = apart(before, spaces, space, inputs, gates)
        gram = centred(found.gram.numpy(), found.cross.numpy(), found.excess)
        error = float((reached - torch.cat(aims)).square().sum())
        assert weights @ gram @ weights == pytest.approx(error, rel=1e-8)


def test_positions_are_drawn_where_there_are_more_and_repeat_with_the_generator():
    network, inputs = made("convolution"), pictures(5)
    spaces = trace(network, inputs)
    grams = [
        contributions(network, spaces, 0, Prefix(spaces, [inputs]), 16, torch.Generator().manual_seed(seed)).gram
        for seed in (1, 1, 2)
    ]
    assert torch.equal(grams[0], grams[1]) and not torch.equal(grams[0], grams[2])
    whole = contributions(network, spaces, 0, Prefix(spaces, [inputs]), ALL, generator()).gram / 64
    many = contributions(network, spaces, 0, Prefix(spaces, [inputs] * 40), 16, generator()).gram / 16 / 40
    assert torch.allclose(whole, many, rtol=0.2, atol=0.05 * float(whole.abs().max()))


@REPEATABLE
@given(st.integers(0, 199))
def test_smaller_networks_compute_what_gated_ones_do(seed):
    """G12, on two hundred random networks: a selection folded into the readers changes nothing but the size."""
    network, inputs, chance = drawn(seed, smooth=False), pictures(6), random.Random(seed)
    spaces = trace(network, inputs)
    gates = {}
    for space in spaces.growable:
        found = contributions(network, spaces, space, Prefix(spaces, [inputs]), 4, generator())
        keep = Stop(neurons=chance.randint(1, len(found.members)))
        weights = select(centred(found.gram.numpy()), chance.choice(("line_search", "fully_corrective")), keep)
        gates[space] = gates_of(found.members, weights.weights())
        assert float(gates[space].sum()) == pytest.approx(spaces[space].size)
    small, _ = shrunk(network, spaces, gates)
    with gated(network, spaces, gates), torch.no_grad():
        wanted = network(inputs)
    with torch.no_grad():
        assert float((small(inputs) - wanted).abs().max()) <= 1e-9 * max(1.0, float(wanted.abs().max()))
    for space in spaces.growable:
        for axis in spaces.along(space, "writer"):
            assert small.get_parameter(axis.tensor).shape[axis.axis] == int((gates[space] > 0).sum())


@settings(REPEATABLE, max_examples=50)
@given(st.integers(0, 49))
def test_a_network_run_from_a_prefix_is_the_network(seed):
    network, inputs = drawn(seed, smooth=False), pictures(6)
    spaces = trace(network, inputs)
    prefix = Prefix(spaces, [inputs[:4], inputs[4:]])
    with torch.no_grad(), evaluating(network):
        wanted = network(inputs)
        for space in spaces.growable:
            prefix.advance(network, first_call(spaces, spaces[space].writers))
            assert torch.allclose(torch.cat(list(prefix.run(network))), wanted, rtol=1e-12, atol=1e-12)
    assert not spaces.growable or len(spaces.growable) < 2 or prefix.place > 0


def test_a_prefix_is_not_harmed_by_what_works_in_place():
    network = settled(nn.Sequential(conv(3, 4), nn.ReLU(inplace=True), conv(4, 4), nn.ReLU(inplace=True), nn.Flatten(),
                                    nn.Linear(256, 4)))  # fmt: skip
    inputs = pictures(3)
    spaces = trace(network, inputs)
    prefix = Prefix(spaces, [inputs])
    prefix.advance(network, 1)
    with torch.no_grad():
        for _ in range(3):
            assert difference(lambda x: prefix.output(network, 0), network, inputs) == 0


def test_a_prefix_too_large_to_keep_is_run_from_the_inputs():
    network, inputs = made("convolution"), pictures(3)
    spaces = trace(network, inputs)
    prefix = Prefix(spaces, [inputs], limit=100)
    prefix.advance(network, 2)
    assert prefix.place == 0
    with torch.no_grad():
        assert torch.equal(prefix.output(network, 0), network(inputs))
