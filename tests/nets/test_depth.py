"""Layers inserted where nothing is there yet: they change nothing, can be saved, learn, and go wherever they fit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    NETWORKS,
    Net,
    conv,
    deepened,
    difference,
    displaced,
    example,
    pictures,
    settled,
    split_all,
    squared,
)
from random_networks import REPEATABLE, drawn
from torch import nn

from studio.nets.activations import Gaussian
from studio.nets.depth import ACT, INN, OUT, Insertion, insert, positions
from studio.nets.neighbourhood import Displacement, built
from studio.nets.network_files import load_network, save_network
from studio.nets.spaces import Axis, Segment, declared, trace
from studio.nets.surgery import widened

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
PLACES = {
    "perceptron": ["_2", "_4"], "pooled": ["_2", "_6", "_9"], "residual": ["gelu", "silu_1"],
    "depthwise": ["_5", "_7"], "multiplier": ["_2", "_7"], "grouped": ["_1", "_4", "_6", "_8"],
}  # fmt: skip


def without_amounts(displacements):
    """The same splits, shifts and new neurons in amounts of 0: they do not move, and nobody reads the new ones."""
    return [
        Displacement(each.space, each.split, 0 * each.moves, each.shifted, 0 * each.shifts, each.rows,
                     {name: 0 * part for name, part in each.columns.items()})
        for each in displacements
    ]  # fmt: skip


def still(network, spaces, inputs, seed=0):
    """Check that growing by each kind in amounts of 0, and by all at once, changes no output, in both precisions."""
    deeper, own = deepened(network, inputs, spaces, 3, seed)
    for name, part in deeper.named_parameters():
        if name.startswith("deeper") and name.endswith(f"{OUT}.weight"):
            part.data.zero_()
    every = without_amounts(displaced(network, spaces, seed)[0])
    nobody = torch.zeros(0, dtype=torch.int64)
    splits = [Displacement(e.space, e.split, e.moves, nobody, e.shifts[:0], e.rows[:0]) for e in every]
    fresh = [Displacement(e.space, nobody, e.moves[:0], nobody, e.shifts[:0], e.rows, e.columns) for e in every]
    grown = [built(network, spaces, kind)[0] for kind in (splits, fresh)]
    grown += [built(deeper, own, without_amounts(displaced(deeper, own, seed)[0]))[0]]
    for each in (deeper, *grown):
        change = difference(each, network, inputs)
        assert change <= TOLERANCE[inputs.dtype], change
    if inputs.dtype is torch.float64:
        network, inputs = copy.deepcopy(network).float(), inputs.float()
        assert max(difference(each.float(), network, inputs) for each in (deeper, *grown)) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_growth_of_every_kind_by_nothing_changes_nothing(name, dtype):
    network, inputs, spaces = example(name, dtype)
    still(network, spaces, inputs)


@settings(REPEATABLE, max_examples=60)
@given(st.integers(0, 59))
def test_growth_by_nothing_keeps_random_networks(seed):
    network, inputs = drawn(seed, smooth=False), pictures(4)
    still(network, trace(network, inputs), inputs, seed)


@pytest.mark.parametrize("name", PLACES)
def test_layers_go_behind_the_last_activation_of_every_space(name):
    network, inputs, spaces = example(name)
    found = positions(network, spaces)
    assert list(found) == PLACES[name]
    nodes = {node.name: node for node in spaces.traced.graph.graph.nodes}
    for node, space in found.items():
        assert spaces.traced.values[nodes[node]][1] == (Segment(space),)
    deeper, own = deepened(network, inputs, spaces)
    for number, space in enumerate(found.values()):
        inn, out = deeper.get_submodule(f"deeper{number}.inn"), deeper.get_submodule(f"deeper{number}.out")
        assert len(inn.weight) == 2 and inn.bias is not None and out.bias is None
        assert own[own.named(f"deeper{number}.{INN}")].splittable
        onto = own[own.named(spaces[space].name)]
        assert onto.movable and f"deeper{number}.{OUT}" in onto.writers and onto.size == spaces[space].size
        writer = network.get_submodule(spaces[space].writers[0])
        if isinstance(writer, nn.Conv2d):
            assert inn.kernel_size == writer.kernel_size and out.kernel_size == (1, 1)
    assert difference(deeper, network, inputs) > 1e-3


def test_every_neuron_of_a_layer_costs_the_same():
    network, _, spaces = example("pooled")
    sizes = [sum(p.numel() for p in insert(network, spaces, [Insertion("_2", "x", wide)]).parameters())
             for wide in (1, 2, 5)]  # fmt: skip
    start = sum(part.numel() for part in network.parameters())
    assert [size - start for size in sizes] == [41, 82, 205]


@pytest.mark.parametrize("name", NETWORKS)
def test_deeper_networks_come_back_from_files_bit_for_bit(name, tmp_path):
    network, inputs, spaces = example(name, torch.float32)
    deeper, own = deepened(network, inputs, spaces)
    grown, edits = widened(deeper, own, split_all(own, (0.5, 0.5)))
    save_network(tmp_path / "n.safetensors", grown, edits)
    loaded, log = load_network(tmp_path / "n.safetensors")
    assert torch.equal(loaded(inputs), grown(inputs)) and len(log) == len(edits)
    assert trace(loaded, inputs[:2]).widths == trace(grown, inputs[:2]).widths == tuple(2 * w for w in own.widths)


def test_another_layer_goes_behind_an_inserted_one_and_into_it():
    network, inputs, spaces = example("pooled")
    first = insert(network, spaces, [Insertion("_2", "deeper1", 3)]).eval()
    for part in first.deeper1.parameters():
        nn.init.normal_(part)
    own = trace(first, inputs[:2])
    found = positions(first, own)
    assert set(found) == {"_2", "deeper1_act", "_6", "_9"} and found["deeper1_act"] == own.named("deeper1.inn")
    second = insert(first, own, [Insertion(node, f"more{at}", 2) for at, node in enumerate(found)]).eval()
    assert difference(second, first, inputs) == 0
    for name, part in second.named_parameters():
        if name.startswith("more"):
            nn.init.normal_(part, generator=torch.Generator().manual_seed(len(name)))
    x = first.get_submodule("2")(first.get_submodule("1")(first.get_submodule("0")(inputs)))
    more, deeper = second.more0, second.deeper1
    wanted = x + more.out(F.silu(more.inn(x)))
    inside = F.silu(deeper.inn(wanted))
    order = list(found)
    within = second.get_submodule(f"more{order.index('deeper1_act')}")
    wanted = wanted + deeper.out(inside + within.out(F.silu(within.inn(inside))))
    seen = []
    second.get_submodule("3").register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    second(inputs)
    assert torch.allclose(seen[0], wanted, rtol=1e-12)
    grown, _ = widened(second, trace(second, inputs[:2]), split_all(trace(second, inputs[:2]), (0.5, 0.5)))
    assert difference(grown, second, inputs) <= 1e-12


def test_an_inserted_layer_learns():
    network, inputs, spaces = example("pooled", torch.float32)
    deeper = insert(network, spaces, [Insertion("_2", "deeper1", 6)])
    nn.init.normal_(deeper.deeper1.inn.weight, generator=torch.Generator().manual_seed(0))
    assert difference(deeper, network, inputs) == 0
    optimiser, loss = torch.optim.Adam(deeper.parameters(), 1e-2), squared(inputs)
    before = float(loss(deeper(inputs)).detach())
    for _ in range(5):
        optimiser.zero_grad()
        loss(deeper(inputs)).backward()
        optimiser.step()
    assert float(deeper.deeper1.out.weight.detach().abs().max()) > 1e-3
    assert float(deeper.deeper1.inn.weight.grad.abs().max()) > 0 and float(loss(deeper(inputs)).detach()) < before


@pytest.mark.parametrize("training", [True, False])
def test_inserted_layers_are_in_the_mode_of_the_network_and_it_stays_as_it_is(training):
    network, _, spaces = example("residual")
    network.train(training)
    before = {key: part.clone() for key, part in network.state_dict().items()}
    deeper = insert(network, spaces, [Insertion("gelu", "deeper1", 3), Insertion("silu_1", "deeper2", 2)])
    assert {m.training for m in deeper.modules() if not [*m.children()]} == {training}
    assert deeper.training is training and network.training is training
    assert all(torch.equal(part, before[key]) for key, part in network.state_dict().items())
    mine = {part.data_ptr() for part in network.state_dict().values() if part.numel()}
    assert not mine & {part.data_ptr() for part in deeper.state_dict().values() if part.numel()}
    assert positions(network, spaces) == {"gelu": 0, "silu_1": 1} and not hasattr(network, "deeper1")


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.Linear])
def test_layers_fit_signals_volumes_and_rows(kind):
    """Channels along axis 1 of a convolution, or along the last axis behind a Linear layer."""
    dims = {nn.Conv1d: 1, nn.Conv3d: 3, nn.Linear: 0}[kind]
    make = {True: lambda i, o: nn.Linear(i, o), False: lambda i, o: kind(i, o, 3, padding=1)}[kind is nn.Linear]
    network = settled(nn.Sequential(make(3, 4), nn.Tanh(), make(4, 5), Gaussian(), make(5, 2)))
    shape = (4, 6, 3) if kind is nn.Linear else (4, 3, *[4] * dims)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spaces = trace(network, inputs[:2], (Gaussian,))
    layers = [Insertion(node, f"deeper{at}", 3) for at, node in enumerate(positions(network, spaces))]
    assert [each.node for each in layers] == ["_1", "_3"]
    deeper = insert(network, spaces, layers).eval()
    assert difference(deeper, network, inputs) == 0
    for part in (*deeper.deeper0.parameters(), *deeper.deeper1.parameters()):
        nn.init.normal_(part)
    assert type(deeper.deeper0.inn) is type(deeper.deeper0.out) is kind
    assert isinstance(deeper.deeper1.get_submodule(ACT), Gaussian) and difference(deeper, network, inputs) > 1e-3
    hidden = network[1](network[0](inputs))
    wanted = hidden + deeper.deeper0.out(torch.tanh(deeper.deeper0.inn(hidden)))
    assert torch.allclose(deeper.get_submodule("2")(wanted), network[2](wanted))
    after = network[3](network[2](wanted))
    after = after + deeper.deeper1.out(network[3](deeper.deeper1.inn(after)))
    assert torch.allclose(deeper(inputs), network[4](after))


@pytest.mark.parametrize("name, act", [("log", torch.log), ("sqrt", torch.sqrt), ("pow", lambda x: x**-1.0)])
def test_functions_that_are_no_activations_are_not_copied(name, act):
    """Their value at 0 is infinite or has an infinite slope: a new layer has a SiLU there."""
    network = settled(
        Net(lambda self, x: self.head(act(1 + self.one(x).square()).flatten(1)), one=conv(3, 4), head=nn.Linear(256, 4))
    )
    inputs = pictures()
    spaces = trace(network, inputs[:2])
    (node,) = positions(network, spaces)
    deeper = insert(network, spaces, [Insertion(node, "deeper1", 3)]).eval()
    nn.init.normal_(deeper.deeper1.inn.weight)
    assert difference(deeper, network, inputs) == 0
    squared(inputs)(deeper(inputs)).backward()
    assert bool(torch.isfinite(deeper.deeper1.out.weight.grad).all()) and name in node


def test_what_is_written_in_place_is_not_read_too_late():
    def rule(self, x):
        x = F.relu(self.one(x), inplace=True)
        x += self.two(x)
        return self.head(self.act(x).flatten(1))

    parts = {"one": conv(3, 4), "two": conv(4, 4), "act": nn.SiLU(inplace=True), "head": nn.Linear(256, 4)}
    network, inputs = settled(Net(rule, **parts)), pictures()
    deeper, _ = deepened(network, inputs, trace(network, inputs[:2]))
    x = F.relu(network.one(inputs))
    x = F.silu(x + network.two(x))
    wanted = network.head((x + deeper.deeper0.out(F.silu(deeper.deeper0.inn(x)))).flatten(1))
    assert torch.allclose(deeper(inputs), wanted)


@pytest.mark.parametrize(
    "insertion, fault",
    [
        (Insertion("_3", "x", 1), "no layer can be inserted behind '_3': choose one of _2, _6, _9"),
        (Insertion("nothing", "x", 1), "behind 'nothing'"),
        (Insertion("_2", "train", 1), "name 'train' must be new and width at least 1, got 1"),
        (Insertion("_2", "x", 0), "name 'x' must be new and width at least 1, got 0"),
    ],
)
def test_what_cannot_be_inserted_is_said_in_a_sentence(insertion, fault):
    network, _, spaces = example("pooled")
    with pytest.raises(ValueError, match=fault):
        insert(network, spaces, [Insertion("_6", "before", 1), insertion])
    with pytest.raises(ValueError, match="name 'x' must be new"):
        insert(network, spaces, [Insertion("_2", "x", 1), Insertion("_6", "x", 1)])


def test_a_network_that_was_not_traced_has_no_places():
    network = Net(lambda self, x: self.two(torch.tanh(self.one(x))), one=nn.Linear(3, 4), two=nn.Linear(4, 2))
    axes = [
        Axis("one.weight", 0, "writer", (Segment(0),)), Axis("one.bias", 0, "writer", (Segment(0),)),
        Axis("two.weight", 1, "reader", (Segment(0),)),
    ]  # fmt: skip
    spaces = declared(network, axes, (4,))
    assert positions(network, spaces) == {}
    with pytest.raises(ValueError, match="layers are inserted into the graph of a network, and this one was not"):
        insert(network, spaces, [Insertion("tanh", "x", 1)])
