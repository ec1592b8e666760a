"""Budgets: met, used up, shared by one error or by one share of channels, and refused in a sentence."""

import numpy as np
import pytest
import torch
from networks import conv, pictures, settled
from torch import nn

from studio.methods.pruning_budget import ALLOCATIONS, Curve, allotted
from studio.nets.costs import layer_macs, macs, shrunken
from studio.nets.spaces import trace
from studio.nets.surgery import keep, widened

SHARES = (0.1, 0.25, 0.5, 0.8, 0.97)


def drawn(seed):
    """Three layers with falling errors at some of their sizes, one in pairs, and the cost of a chain of layers."""
    random, curves = np.random.default_rng(seed), {}
    for space, (size, groups) in {4: (24, 1), 7: (10, 2), 9: (40, 1)}.items():
        kept = np.unique(np.append(random.integers(1, size + 1, 15), [1, size]))
        errors = np.sort(10.0 ** random.uniform(-9, 1, len(kept)))[::-1].copy()
        errors[-1] = 0.0
        curves[space] = Curve(kept, errors, size, groups)

    def cost(widths):
        return 3 * widths[4] + widths[4] * widths[7] * 9.0 + widths[7] * widths[9] + 10 * widths[9] + 50

    return curves, cost


def price(curves, cost, vertices):
    return cost({space: vertices[space] * curve.groups for space, curve in curves.items()})


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(6))
def test_budgets_are_met_and_one_step_more_of_any_layer_would_not_be(allocation, share, seed):
    curves, cost = drawn(seed)
    whole = {space: curve.size for space, curve in curves.items()}
    found = allotted(curves, allocation, share, cost)
    budget = share * price(curves, cost, whole)
    assert price(curves, cost, found) <= budget * (1 + 1e-6)
    assert all(1 <= found[space] <= curve.size for space, curve in curves.items())
    more = {}
    for space, curve in curves.items():
        larger = curve.kept[curve.kept > found[space]] if allocation == "tolerance" else [found[space] + 1]
        more[space] = int(min(larger[0] if len(larger) else curve.size, curve.size))
    assert price(curves, cost, more) > budget, "one step more of every layer is too much"


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(6))
def test_layers_share_one_error_up_to_one_step(share, seed):
    """Some level of error lies between what every layer has and what it would have with one step less."""
    curves, cost = drawn(seed)
    found = allotted(curves, "tolerance", share, cost)
    at, below = [], []
    for space, curve in curves.items():
        place = int(np.flatnonzero(curve.kept == found[space])[0])
        at.append(curve.errors[place])
        below.append(curve.errors[place - 1] if place else np.inf)
    assert max(at) <= min(below) * (1 + 1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_layers_share_one_fraction_of_their_channels(share):
    curves, cost = drawn(0)
    found = allotted(curves, "uniform", share, cost)
    lowest = max(
        (found[space] - (found[space] > 1)) / curve.size for space, curve in curves.items() if found[space] > 1
    )
    highest = min((found[space] + 1) / curve.size for space, curve in curves.items())
    assert lowest <= highest


def test_all_is_kept_where_all_is_allowed():
    curves, cost = drawn(0)
    for allocation in ALLOCATIONS:
        assert allotted(curves, allocation, 1.0, cost) == {4: 24, 7: 10, 9: 40}


def test_budgets_nobody_can_meet_are_refused_in_a_sentence():
    curves, cost = drawn(0)
    with pytest.raises(ValueError, match="macs of 1% cannot be reached with one channel a layer: allow more"):
        allotted(curves, "uniform", 0.01, cost)
    with pytest.raises(ValueError, match="allocation must be one of tolerance, uniform"):
        allotted(curves, "magic", 0.5, cost)


def test_the_least_budget_is_one_channel_a_layer():
    """Also where a layer's error with one channel is larger than any tolerance that is tried."""
    curves = {space: Curve(np.arange(1, 9), np.append(10.0 ** np.arange(6, -1, -1), 0.0), 8) for space in (0, 1)}

    def cost(widths):
        return float(widths[0] + widths[1])

    for allocation in ALLOCATIONS:
        assert allotted(curves, allocation, 2 / 16, cost) == {0: 1, 1: 1}


def test_curves_say_the_fewest_vertices_within_an_error():
    curve = Curve(np.array([1, 3, 6]), np.array([0.5, 0.1, 0.01]), 9)
    assert [curve.vertices(level) for level in (1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001)] == [1, 1, 3, 3, 6, 6, 9]


def test_costs_from_the_layers_are_those_of_a_network_that_was_built():
    """Convolutions in groups and strides, flattened pictures, a depthwise layer: counted by PyTorch's own counter."""
    network = settled(nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8, groups=8, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(),
        conv(6, 4, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 4),
    ), dtype=torch.float32)  # fmt: skip
    inputs = pictures(2, dtype=torch.float32)
    spaces = trace(network, inputs)
    layers = layer_macs(network, inputs)
    assert sum(layers.values()) == macs(network, inputs)
    random = np.random.default_rng(0)
    for _ in range(10):
        changes, widths = {}, {}
        for space in spaces.growable:
            groups = spaces[space].groups
            block = spaces[space].size // groups
            each = int(random.integers(1, block + 1))
            changes[space] = keep([start + k for start in range(0, spaces[space].size, block) for k in range(each)])
            widths[space] = each * groups
        small, _ = widened(network, spaces, changes)
        assert shrunken(layers, spaces, widths) == pytest.approx(macs(small, inputs))
