"""A network displaced without being rebuilt: it computes what the rebuilt one computes, and stays as it was."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, deepened, difference, displaced, example, pictures, settled, squared, twice
from random_networks import REPEATABLE, drawn
from torch import nn

from studio.nets.neighbourhood import Displacement, Neighbourhood, adopt, built, through
from studio.nets.spaces import trace
from studio.nets.surgery import NEW, replayed


def relative(one, two):
    return float((one - two).detach().abs().max() / two.detach().abs().max())


def agreement(network, spaces, inputs, seed=0):
    """Check everything that is said of displacements of all movable spaces at once; return by how much they move."""
    state = {key: part.clone() for key, part in network.state_dict().items()}
    before = network(inputs).detach()
    displacements, counts = displaced(network, spaces, seed)
    hood = Neighbourhood(network, spaces, counts)
    assert relative(hood.run(inputs, []), before) <= 1e-12, "nothing changes nothing"
    found = hood.run(inputs, displacements).detach()
    grown, edits, changes = built(network, spaces, displacements)
    assert relative(grown(inputs), found) <= 1e-10
    again = replayed(network, edits)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), grown.state_dict().values(), strict=True))
    assert set(changes) == set(counts) and all(
        int((changes[each.space].src == NEW).sum()) == each.new for each in displacements
    )
    assert all(torch.equal(part, state[key]) for key, part in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hood.network.modules())
    return relative(found, before)


@pytest.mark.parametrize("deep", [False, True], ids=["as it is", "deeper"])
@pytest.mark.parametrize("name", NETWORKS)
def test_displaced_networks_are_the_built_ones(name, deep):
    network, inputs, spaces = example(name)
    if deep:
        network, spaces = deepened(network, inputs, spaces)
    assert len(spaces.movable) >= 2 - (name == "scaled" and not deep)
    assert agreement(network, spaces, inputs) > 1e-3


@settings(REPEATABLE, max_examples=60)
@given(st.integers(0, 59))
def test_random_networks_are_displaced_as_they_are_built(seed):
    network, inputs = drawn(seed, smooth=False), pictures(4)
    spaces = trace(network, inputs)
    if seed % 2:
        network, spaces = deepened(network, inputs, spaces)
    if spaces.movable:
        agreement(network, spaces, inputs, seed)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_flow_to_every_displacement(name):
    network, inputs, spaces = example(name)
    displacements, counts = displaced(network, spaces)
    leaves = []
    for each in displacements:
        own = [each.moves, each.shifts, each.rows, *each.columns.values()]
        leaves += [part.requires_grad_(True) for part in own if part.numel()]
    value = squared(inputs)(Neighbourhood(network, spaces, counts).run(inputs, displacements))
    slopes = torch.autograd.grad(value, leaves)
    assert all(bool((part.flatten(1).abs().amax(dim=1) > 0).all()) for part in slopes)
    step = 1e-6
    for leaf, slope in zip(leaves, slopes, strict=True):
        with torch.no_grad():
            leaf += step * slope / slope.norm()
    after = squared(inputs)(Neighbourhood(network, spaces, counts).run(inputs, displacements))
    wanted = sum(float(part.norm()) for part in slopes)
    assert float((after - value).detach()) / step == pytest.approx(wanted, rel=1e-3)
    assert not any(part.requires_grad for part in Neighbourhood(network, spaces, counts).network.parameters())


def test_a_split_alone_is_the_mean_of_two_networks():
    """From the definition: half of the neuron moved one way and half of it the other, seen by its one reader."""
    network, inputs, spaces = example("perceptron")
    (each, _), _ = displaced(network, spaces)
    nothing = each.shifts[:0], torch.zeros(0, 193).double()
    only = Displacement(0, each.split, each.moves, each.shifted[:0], *nothing, {"3.weight": torch.zeros(5, 0).double()})
    found = Neighbourhood(network, spaces, {}).run(inputs, [only])
    x = inputs.flatten(1)
    halves = []
    for sign in (1, -1):
        weight, bias = network[1].weight.clone(), network[1].bias.clone()
        weight[each.split] += sign * each.moves[:, :-1]
        bias[each.split] += sign * each.moves[:, -1]
        halves.append(F.silu(F.linear(x, weight, bias)))
    assert relative(found, network[3:]((halves[0] + halves[1]) / 2)) <= 1e-13


def test_a_channel_read_beside_itself_has_columns_in_both_places():
    """What goes through two ways and is laid side by side again, once flattened and once as a mean."""
    network, inputs = settled(twice()), pictures()
    spaces = trace(network, inputs[:2])
    assert [part.space for part in spaces.along(0, "reader")[0].layout] == [0, 0]
    assert agreement(network, spaces, inputs) > 1e-3
    displacements, counts = displaced(network, spaces)
    assert displacements[0].columns["head.weight"].shape == (4, 2 * 65)
    grown, _, _ = built(network, spaces, displacements)
    new = [*range(5 * 64, 7 * 64), *range(7 * 65 - 2, 7 * 65)]
    assert bool((grown.head.weight[:, new] != 0).all()), "each neuron is read both ways"
    hood = Neighbourhood(network, spaces, counts)
    axis = hood.spaces.along(0, "reader")[0]
    assert sorted(hood.places(axis, 0).tolist()) == [*range(4 * 64, 6 * 64), *range(6 * 64 + 4, 6 * 65)]


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose3d])
def test_layers_of_other_shapes_are_displaced_too(kind):
    dims = {nn.Conv1d: 1, nn.Conv3d: 3, nn.Linear: 0, nn.ConvTranspose1d: 1, nn.ConvTranspose3d: 3}[kind]
    if kind is nn.Linear:
        network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 2))
        inputs = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).double()
    else:
        first = {1: nn.Conv1d, 3: nn.Conv3d}[dims](3, 4, 3, padding=1, padding_mode="circular")
        network = nn.Sequential(first, nn.Tanh(), kind(4, 3, 3), nn.Flatten(), nn.LazyLinear(4))
        inputs = torch.randn(4, 3, *[6] * dims, generator=torch.Generator().manual_seed(0))
        network(inputs)
        inputs = inputs.double()
    network = settled(network)
    spaces = trace(network, inputs[:2])
    assert agreement(network, spaces, inputs) > 1e-3
    grown, _ = deepened(network, inputs, spaces)
    assert agreement(grown, trace(grown, inputs[:2]), inputs) > 1e-3


def test_fewer_rows_go_through_a_layer_as_in_the_whole_one():
    for module, x in (
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.randn(2, 4, 8, 8)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, dilation=2), torch.randn(2, 4, 5, 5)),
        (nn.Linear(4, 6), torch.randn(2, 3, 4)),
    ):
        assert torch.allclose(through(module, x, module.weight, module.bias), module(x), atol=1e-6)
    module, x = nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 8, 8)
    taken = [0, 2, 3, 5]
    assert torch.allclose(through(module, x, module.weight[taken], module.bias[taken]), module(x)[:, taken], atol=1e-6)


@pytest.mark.parametrize("name", ["pooled", "depthwise", "multiplier", "dense"])
def test_statistics_of_new_neurons_are_adopted(name):
    network, _, spaces = example(name)
    displacements, counts = displaced(network, spaces)
    hood = Neighbourhood(network, spaces, counts)
    for key, part in hood.network.named_buffers():
        if part.is_floating_point():
            part += torch.arange(len(part)) + len(key)
    grown, _, changes = built(network, spaces, displacements)
    before = {key: part.clone() for key, part in grown.state_dict().items()}
    adopt(grown, spaces, changes, hood, {space: space for space in changes})
    seen = 0
    for axis in spaces.axes:
        if axis.tensor.endswith(("running_mean", "running_var")):
            old = torch.cat([
                (changes[part.space].src >= 0).repeat_interleave(part.expansion) if part.space in changes
                else torch.ones(spaces[part.space].size * part.expansion).bool() for part in axis.layout
            ])  # fmt: skip
            room = hood.edits[[(e.tensor, e.axis) for e in hood.edits].index((axis.tensor, 0))]
            source = hood.network.get_buffer(axis.tensor)[torch.tensor(room.index) < 0]
            assert torch.equal(grown.get_buffer(axis.tensor)[~old], source) and len(source)
            assert torch.equal(grown.get_buffer(axis.tensor)[old], before[axis.tensor][old])
            seen += 1
            before.pop(axis.tensor)
    assert seen >= 2
    assert all(torch.equal(grown.state_dict()[key], part) for key, part in before.items())


def test_a_displacement_counts_its_new_neurons():
    network, inputs, spaces = example("grouped")
    found, counts = displaced(network, spaces)
    assert [each.new for each in found] == list(counts.values()) == [4, 12, 6, 2]
    assert {field.name for field in fields(Displacement)} >= {"moves", "shifts", "rows", "columns"}
    assert difference(built(network, spaces, [])[0], network, inputs) == 0
