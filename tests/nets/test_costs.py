"""What networks cost: known counts, and that the cost of a channel is what surgery then adds, to the integer."""

import copy

import pytest
import torch
from networks import NETWORKS, conv, example, settled
from torch import nn

from studio.nets.costs import COUNTERS, FETCH, energy, latency, macs, marginal_costs, parameters
from studio.nets.spaces import trace
from studio.nets.surgery import keep, widened


def test_known_counts():
    network = nn.Sequential(conv(3, 4, bias=False), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(256, 10))
    example = torch.zeros(5, 3, 8, 8)
    assert macs(network, example) == 64 * 4 * 27 + 2560 and isinstance(macs(network, example), int)
    assert parameters(network) == 4 * 27 + 8 + 2570
    assert energy(network, example) == macs(network, example) + FETCH * parameters(network)
    assert 0 < latency(network, example, repeats=3) < 5 and set(COUNTERS) == {"macs", "parameters", "energy"}
    depthwise = conv(4, 8, groups=4, stride=2)
    assert macs(depthwise, torch.zeros(1, 4, 8, 8)) == 16 * 8 * 9


def added(network, spaces, space, more, inputs, counter):
    """What surgery adds when every block of a space gets `more` copies of its first channel, by blocks."""
    size, groups = spaces[space].size, spaces[space].groups
    block = size // groups
    source = [c for start in range(0, size, block) for c in (*range(start, start + block), *[start] * more)]
    grown, _ = widened(network, spaces, {space: keep(source)})
    return counter(grown, inputs) - counter(network, inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_what_surgery_adds(name):
    network, inputs, spaces = example(name)
    for counter in (macs, parameters):
        costs = marginal_costs(network, spaces, inputs, counter)
        assert set(costs) == set(spaces.growable)
        for space, cost in costs.items():
            groups = spaces[space].groups
            assert cost * groups == added(network, spaces, space, 1, inputs, counter) > 0
            once = marginal_costs(network, spaces, inputs, counter, more=2)[space]
            assert 2 * groups * once == added(network, spaces, space, 2, inputs, counter)


def test_a_cost_worked_out_by_hand():
    network, inputs, spaces = example("depthwise")
    costs = marginal_costs(network, spaces, inputs)
    assert costs == {0: 64 * 27 + 16 * 9 + 16 * 5, 1: 16 * 4 + 4}
    flat, inputs, spaces = example("pooled")
    assert marginal_costs(flat, spaces, inputs)[2] == 4 * 5 * 9 + 4 * 4


def test_counting_leaves_the_network_alone():
    network, inputs, spaces = example("pooled")
    network.train()
    state = copy.deepcopy(network.state_dict())
    marginal_costs(network, spaces, inputs)
    marginal_costs(network, spaces, inputs, latency, more=8)
    assert network.training and all(module.training for module in network.modules())
    for counter in COUNTERS.values():
        counter(network, inputs)
    assert all(torch.equal(part, state[key]) for key, part in network.state_dict().items() if "norm" not in key)
    assert network[0].weight.device.type == "cpu" and trace(settled(network), inputs).widths == spaces.widths
