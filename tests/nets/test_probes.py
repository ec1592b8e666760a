"""The probe: it finds channels that mix on the way, whoever said they would not, and leaves the network alone."""

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, Net, conv, example, pictures, settled
from torch import fx, nn

from studio.nets.probes import apart, probed
from studio.nets.spaces import Axis, Segment, declared, trace
from studio.nets.surgery import Change, keep, widened


class Mixer(nn.Module):
    """A softmax over the channels, declared elementwise by mistake."""

    def forward(self, x: torch.Tensor | fx.Proxy):
        return F.softmax(x, dim=1) * x


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_of_known_networks_stay_apart(name):
    network, inputs, spaces = example(name)
    network.train()
    modes = [module.training for module in network.modules()]
    state = {key: part.clone() for key, part in network.state_dict().items()}
    assert probed(network, spaces, inputs[:2]).spaces == spaces.spaces
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(part, state[key]) for key, part in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_mixer_declared_elementwise_is_found():
    network = settled(nn.Sequential(conv(3, 4), Mixer(), conv(4, 5), nn.SiLU(), nn.Flatten(), nn.Linear(320, 4)))
    inputs = pictures(2)
    spaces = trace(network, inputs, (Mixer,))
    assert spaces.splittable == (0, 1)
    found = probed(network, spaces, inputs)
    assert found.splittable == (1,) and found.growable == (0, 1)
    assert found[0].whole == "its channels mix before 2 reads them (found by a probe)"
    change = Change(torch.tensor([0, 1, 2, 3, 0]), keep(range(5)).coef, torch.zeros(5, 28).double())
    with pytest.raises(ValueError, match="space 0 cannot be split: its channels mix"):
        widened(network, found, {0: change})


@pytest.mark.parametrize("mixing", [False, True])
def test_spaces_declared_by_hand_are_probed_too(mixing):
    def rule(self, x):
        h = self.one(x.flatten(1))
        return self.two(h.roll(1, dims=1).tanh() * h if mixing else h.tanh())

    network = settled(Net(rule, one=nn.Linear(192, 6), two=nn.Linear(6, 4)))
    axes = [
        Axis("one.weight", 0, "writer", (Segment(0),)), Axis("one.bias", 0, "writer", (Segment(0),)),
        Axis("two.weight", 1, "reader", (Segment(0),)),
    ]  # fmt: skip
    spaces = declared(network, axes, (6,))
    assert apart(network, spaces, 0, pictures(2)) is not mixing
    assert bool(probed(network, spaces, pictures(2))[0].whole) is mixing


def test_a_reader_that_the_probe_cannot_watch_is_not_trusted():
    """Its weight is used by the network itself, so that nobody sees what it is given."""
    network = settled(
        Net(
            lambda self, x: F.linear(self.one(x.flatten(1)).tanh(), self.weight),
            one=nn.Linear(192, 6), weight=nn.Parameter(torch.ones(4, 6)),
        )
    )  # fmt: skip
    axes = [
        Axis("one.weight", 0, "writer", (Segment(0),)), Axis("one.bias", 0, "writer", (Segment(0),)),
        Axis("weight", 1, "reader", (Segment(0),)),
    ]  # fmt: skip
    found = probed(network, declared(network, axes, (6,)), pictures(2))
    assert found.growable == (0,) and found.splittable == ()


def test_as_many_tokens_as_features_confuse_nobody():
    network = settled(
        Net(
            lambda self, x: self.head(torch.tanh(self.lift(x))).mean(1),
            lift=nn.Linear(4, 5), head=nn.Linear(5, 3),
        )
    )  # fmt: skip
    tokens = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    spaces = trace(network, tokens)
    assert spaces[0].splittable and apart(network, spaces, 0, tokens)
