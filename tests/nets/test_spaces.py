"""Channel spaces: what is found in known networks, what freezes, declarations by hand, and what tracing leaves be."""

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, Net, conv, difference, example, pictures, settled, split_all
from torch import nn

from studio.nets.activations import Gaussian
from studio.nets.spaces import Axis, Segment, declared, trace
from studio.nets.surgery import widened


def summary(spaces):
    return [(space.name, space.size, space.groups, space.growable, space.splittable) for space in spaces.spaces]


FOUND = {
    "perceptron": [("1", 6, 1, True, True), ("3", 5, 1, True, True), ("5", 4, 1, False, False)],
    "residual": [("stem", 4, 1, True, False), ("one", 5, 1, True, True), ("head", 4, 1, False, False)],
    "multiplier": [("0", 4, 1, True, True), ("6", 5, 1, True, True), ("10", 4, 1, False, False)],
    "dense": [
        ("a", 3, 1, True, True), ("b", 4, 1, True, True), ("c", 3, 1, True, True), ("far", 2, 1, True, True),
        ("head", 4, 1, False, False),
    ],
    "grouped": [
        ("0", 4, 2, True, True), ("2", 6, 6, True, True), ("5", 6, 3, True, True), ("7", 3, 1, True, True),
        ("10", 4, 1, False, False),
    ],
    "gated": [("stem", 4, 1, True, False), ("down", 3, 1, True, True), ("head", 4, 1, False, False)],
    "scaled": [("stem", 4, 1, True, True), ("back", 5, 1, True, False), ("head", 4, 1, False, False)],
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_known_networks_have_known_spaces(name):
    spaces = example(name)[2]
    assert summary(spaces) == FOUND[name]
    assert len(spaces) == len(FOUND[name]) and spaces.widths == tuple(s[1] for s in FOUND[name] if s[3])
    assert spaces.splittable == tuple(place for place, found in enumerate(FOUND[name]) if found[4])


def test_axes_say_who_writes_rides_and_reads():
    spaces = example("multiplier")[2]
    one, two = (Segment(0),), (Segment(0, 2),)
    assert set(spaces.along(0)) == {
        Axis("0.weight", 0, "writer", one), Axis("0.bias", 0, "writer", one),
        *(Axis(f"1.{key}", 0, "rider", one) for key in ("weight", "bias", "running_mean", "running_var")),
        Axis("3.weight", 0, "rider", two), Axis("3.bias", 0, "rider", two),
        *(Axis(f"4.{key}", 0, "rider", two) for key in ("weight", "bias", "running_mean", "running_var")),
        Axis("6.weight", 1, "reader", two),
    }  # fmt: skip
    assert [axis.tensor for axis in spaces.along(0, "reader")] == ["6.weight"]
    assert spaces.along(0, "writer")[0].module == "0" and spaces.named("6") == 1
    with pytest.raises(ValueError, match="no channel space is called 'conv9'; there are 0, 6, 10"):
        spaces.named("conv9")


def test_concatenations_and_flattenings_lay_segments_out():
    spaces = example("dense")[2]
    layouts = {axis.tensor: axis.layout for axis in spaces.axes if axis.role == "reader"}
    assert layouts["c.weight"] == (Segment(0), Segment(1))
    assert layouts["side.weight"] == (Segment(0, 64), Segment(1, 64))
    assert layouts["head.weight"] == (Segment(2), Segment(3))
    assert spaces[4].writers == ("head", "side")
    groups = {axis.tensor: axis.groups for axis in example("grouped")[2].axes if axis.role == "reader"}
    assert groups == {"2.weight": 2, "5.weight": 3, "7.weight": 1, "10.weight": 1}


def test_what_is_not_growable_and_not_splittable_says_why():
    spaces = example("residual")[2]
    assert spaces[2].frozen == "the network returns its channels"
    assert spaces[0].whole == "its channels are sums over stem, two: only whole channels of all of them can be copied"
    assert example("scaled")[2][1].whole == "it is written by a transposed convolution"


@pytest.mark.parametrize("name", NETWORKS)
def test_tracing_leaves_the_network_as_it_was(name):
    network, inputs, _ = example(name)
    network.train()
    next(network.children()).eval()
    modes = [module.training for module in network.modules()]
    state = {key: part.clone() for key, part in network.state_dict().items()}
    trace(network, inputs)
    assert [module.training for module in network.modules()] == modes and any(modes) and not all(modes)
    assert all(torch.equal(part, state[key]) for key, part in network.state_dict().items())
    assert all(part.grad is None for part in network.parameters())


class Choosing(nn.Module):
    """Data decide which way is taken, which no tracer can follow."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = conv(3, 4), nn.BatchNorm2d(4)
        self.inner, self.head = conv(4, 6, 1, groups=2), nn.Linear(6 * 64, 4)

    def forward(self, x):
        h = F.silu(self.norm(self.first(x)))
        if float(h.detach().sum()) < 1e9:
            h = torch.tanh(self.inner(h))
        return self.head(h.flatten(1))


def by_hand():
    one, two = (Segment(0),), (Segment(1),)
    return (
        Axis("first.weight", 0, "writer", one), Axis("first.bias", 0, "writer", one),
        *(Axis(f"norm.{key}", 0, "rider", one) for key in ("weight", "bias", "running_mean", "running_var")),
        Axis("inner.weight", 1, "reader", one, 2), Axis("inner.weight", 0, "writer", two),
        Axis("inner.bias", 0, "writer", two), Axis("head.weight", 1, "reader", (Segment(1, 64),)),
    )  # fmt: skip


def test_spaces_declared_by_hand_serve_where_tracing_fails():
    network, inputs = settled(Choosing()), pictures()
    with pytest.raises(ValueError, match="cannot be traced .*declare its channel spaces by hand"):
        trace(network, inputs)
    assert network.training is False
    spaces = declared(network, by_hand(), (4, 6))
    assert summary(spaces)[0] == ("first", 4, 2, True, True) and spaces.traced is None
    grown, _ = widened(network, spaces, {0: split_all(spaces, (0.3, 0.7))[0]})
    assert difference(grown, network, inputs) <= 1e-12 and grown.first.out_channels == 8


@pytest.mark.parametrize(
    "axes, sizes, fault",
    [
        ((Axis("first.weights", 0, "writer", (Segment(0),)),), (4,), "'first.weights', which the network has not"),
        ((Axis("first.weight", 0, "writer", (Segment(0),)),), (5,), "has 4 entries along axis 0, its layout 5"),
        ((Axis("first.weight", 0, "writer", (Segment(0),)),), (4,), "space 0 a writer and a reader"),
    ],
)
def test_wrong_declarations_are_refused(axes, sizes, fault):
    with pytest.raises(ValueError, match=fault):
        declared(settled(Choosing()), axes, sizes)


def test_a_class_may_be_declared_elementwise():
    network, inputs = settled(nn.Sequential(conv(3, 4), Gaussian(), nn.Flatten(), nn.Linear(256, 4))), pictures()
    spaces = trace(network, inputs, (Gaussian,))
    assert [node.op for node in spaces.traced.graph.graph.nodes] == ["placeholder", *["call_module"] * 4, "output"]
    grown, _ = widened(network, spaces, split_all(spaces, (2.0, -1.0)))
    assert difference(grown, network, inputs) <= 1e-12


def test_one_module_under_two_names_and_tied_weights_are_frozen():
    shared = nn.Linear(6, 6)
    tied = Net(
        lambda self, x: self.head(torch.tanh(self.two(torch.tanh(self.one(torch.tanh(self.inner(x))))))),
        inner=nn.Linear(5, 6), one=shared, two=nn.Linear(6, 6), head=nn.Linear(6, 4),
    )  # fmt: skip
    tied.two.weight = tied.one.weight
    frozen = [space.frozen for space in trace(tied, torch.randn(2, 5)).spaces]
    assert (
        frozen[0] == "one.weight is shared with another layer"
        and frozen[2] == "two.weight is shared with another layer"
    )
    twice = Net(
        lambda self, x: torch.cat([self.head(torch.tanh(self.one(x))), self.head(torch.tanh(self.one(-x)))]),
        one=nn.Linear(5, 6), head=nn.Linear(6, 4),
    )  # fmt: skip
    spaces = trace(settled(twice), torch.randn(2, 5).double())
    assert summary(spaces)[0] == ("one", 6, 1, True, True)
    uneven = Net(
        lambda self, x: self.head(torch.tanh(self.one(x))) + self.head(x), one=nn.Linear(5, 5), head=nn.Linear(5, 4)
    )
    assert trace(uneven, torch.randn(2, 5))[0].frozen == "head also reads channels that cannot grow"
