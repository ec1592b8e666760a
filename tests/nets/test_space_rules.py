"""The rules of following: operations that mix channels freeze them by name, and those that do not let them through."""

import re

import pytest
import torch
import torch.nn.functional as F
from networks import Net, conv, difference, pictures, settled, split_all
from torch import nn

from studio.nets.spaces import trace
from studio.nets.surgery import widened


class Swap(nn.Module):
    """A layer no rule knows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", x, self.weight)


def between(rule, channels=4, **parts):
    """A network with `rule` between a convolution and a linear layer over the mean."""
    return settled(
        Net(
            lambda self, x: self.head(rule(self, F.silu(self.first(x))).mean((2, 3))),
            first=conv(3, 4), head=nn.Linear(channels, 4), **parts,
        )
    )  # fmt: skip


FREEZING = {
    "group norm": (lambda s, h: s.norm(h), {"norm": nn.GroupNorm(2, 4)}, r"norm \(GroupNorm\) cannot be followed"),
    "layer norm": (lambda s, h: s.norm(h), {"norm": nn.LayerNorm((4, 8, 8))}, r"norm \(LayerNorm\) cannot be follow"),
    "softmax": (lambda s, h: h.softmax(dim=1), {}, "softmax works across its channels"),
    "softmax module": (lambda s, h: s.soft(h), {"soft": nn.Softmax(dim=-3)}, "soft mixes channels"),
    "chunk": (lambda s, h: torch.cat(h.chunk(2, dim=1)[::-1], dim=1), {}, "chunk works across its channels"),
    "split": (lambda s, h: torch.cat(torch.split(h, 2, 1)[::-1], dim=1), {}, "split works across its channels"),
    "flip": (lambda s, h: h.flip(1), {}, "flip cannot be followed"),
    "roll": (lambda s, h: torch.roll(h, 1, 1), {}, "roll cannot be followed"),
    "cumulative": (lambda s, h: h.cumsum(1), {}, "cumsum cannot be followed"),
    "mean over channels": (lambda s, h: h * h.mean(dim=1, keepdim=True), {}, "mean works across its channels"),
    "some channels": (lambda s, h: h[:, [1, 0, 3, 2]], {}, "takes some of its channels"),
    "shuffle": (
        lambda s, h: h.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2), {}, "unflatten cannot be followed",
    ),
    "named sizes": (lambda s, h: h.view(-1, 4, 64)[:, :, :, None], {}, "view names the number of its channels"),
    "own module": (lambda s, h: s.swap(h), {"swap": Swap()}, "einsum cannot be followed"),
    "buffer": (lambda s, h: h * s.mask, {"mask": nn.Buffer(torch.ones(4, 1, 1))}, "meets channels that cannot grow"),
    "beside itself": (lambda s, h: torch.cat([h, h], 2), {}, "lays channels beside themselves"),
    "transposed axes": (lambda s, h: h + h.mT.mT, {}, "getattr cannot be followed"),
    "grouped back": (
        lambda s, h: s.back(h), {"back": nn.ConvTranspose2d(4, 4, 2, groups=2)}, "transposed convolution in groups",
    ),
    "weight norm": (
        lambda s, h: s.wn(h), {"wn": nn.utils.parametrizations.weight_norm(conv(4, 4))}, "in a form of its own",
    ),
    "groups of a concatenation": (
        lambda s, h: s.g(torch.cat([h, torch.tanh(h)], 1)), {"g": conv(8, 4, groups=2)}, "concatenation in groups",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FREEZING)
def test_what_mixes_channels_freezes_them_and_is_named(name):
    rule, parts, why = FREEZING[name]
    spaces = trace(between(rule, **parts), pictures(2))
    first = spaces[spaces.named("first")]
    assert not first.growable and not first.splittable
    assert re.search(why, first.frozen)


PASSING = {
    "shared activation": (lambda s, h: s.act(s.norm(s.act(h))), {"act": nn.SiLU(), "norm": nn.BatchNorm2d(4)}),
    "instance norm": (lambda s, h: s.norm(h), {"norm": nn.InstanceNorm2d(4, affine=True)}),
    "softmax over pixels": (lambda s, h: F.softmax(h, dim=3) + s.soft(h), {"soft": nn.Softmax(dim=2)}),
    "chunk of pixels": (lambda s, h: (lambda parts: parts[0] - parts[1])(h.chunk(2, dim=3)), {}),
    "some pixels": (lambda s, h: h[:, :, ::2, 1:], {}),
    "some examples": (lambda s, h: torch.cat([h[:1], h[1:]]), {}),
    "both signs": (lambda s, h: torch.cat([F.relu(h), F.relu(-h)], dim=1).pow(2), {}),
    "viewed by size": (lambda s, h: h.view(h.size(0), -1, 8, 8).view(h.shape[0], h.shape[1], -1).unsqueeze(-1), {}),
    "turned about": (lambda s, h: h.permute(0, 2, 3, 1).exp().transpose(1, 3), {}),
    "powers": (lambda s, h: F.softplus(h).pow(s.power), {"power": nn.Parameter(torch.rand(4, 1, 1))}),
    "up and down": (lambda s, h: F.max_pool2d(F.interpolate(h, scale_factor=2), 2), {}),
    "in place": (lambda s, h: s.act(h).mul_(2).add_(h), {"act": nn.SiLU(inplace=True)}),
    "deviation": (lambda s, h: h.std((2, 3), keepdim=True) + h.amax((2, 3), keepdim=True), {}),
    "dropout": (lambda s, h: s.drop(h), {"drop": nn.Dropout2d(0.5)}),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSING)
def test_what_keeps_channels_apart_lets_them_through(name):
    rule, parts = PASSING[name]
    network, inputs = between(rule, 8 if name == "both signs" else 4, **parts), pictures()
    spaces = trace(network, inputs)
    assert spaces.splittable == (0,) and spaces[0].name == "first"
    grown, _ = widened(network, spaces, split_all(spaces, (0.3, 1.0, -0.3)))
    assert difference(grown, network, inputs) <= 1e-12


@pytest.mark.parametrize("width", [4, 6])
def test_one_activation_for_all_layers_unites_nothing(width):
    network = settled(
        Net(
            lambda self, x: self.head(self.act(self.two(self.act(self.one(x)))).mean((2, 3))),
            one=conv(3, 4), two=conv(4, width), act=nn.SiLU(), head=nn.Linear(width, 4),
        )
    )  # fmt: skip
    spaces = trace(network, pictures(2))
    assert spaces.splittable == (0, 1) and spaces.widths == (4, width)


def test_depthwise_filters_of_what_cannot_grow_are_no_space():
    """On the input, and behind what froze the channels: their number is not theirs to choose."""
    network = settled(
        Net(
            lambda self, x: self.head(F.silu(self.two(self.own(self.norm(self.one(self.in_(x)))))).mean((2, 3))),
            in_=conv(3, 6, groups=3), one=conv(6, 4, 1), norm=nn.GroupNorm(2, 4), own=conv(4, 4, groups=4),
            two=conv(4, 5, 1), head=nn.Linear(5, 4),
        )
    )  # fmt: skip
    inputs = pictures()
    spaces = trace(network, inputs)
    assert [space.name for space in spaces.spaces] == ["one", "two", "head"] and spaces.growable == (1,)
    grown, _ = widened(network, spaces, split_all(spaces, (0.5, 0.5)))
    assert difference(grown, network, inputs) <= 1e-12


def test_layers_across_tokens_freeze_the_features():
    tokens = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for rule, part in (
        (lambda s, h: s.mix(h), {"mix": nn.Conv1d(5, 5, 1)}),
        (lambda s, h: s.mix(h), {"mix": nn.AvgPool1d(3, 1, 1)}),
        (lambda s, h: F.max_pool1d(h, 3, 1, 1), {}),
    ):
        network = Net(
            lambda self, x, rule=rule: self.head(rule(self, torch.tanh(self.lift(x)))),
            lift=nn.Linear(4, 5), head=nn.Linear(5, 3), **part,
        )  # fmt: skip
        spaces = trace(network, tokens)
        assert spaces[0].name == "lift" and "works across its channels" in spaces[0].frozen
    mixer = settled(
        Net(
            lambda self, x: self.head(torch.tanh(self.mix(torch.tanh(self.lift(x)).transpose(1, 2)).transpose(1, 2))),
            lift=nn.Linear(4, 6), mix=nn.Linear(5, 7), head=nn.Linear(6, 3),
        )
    )  # fmt: skip
    spaces, inputs = trace(mixer, tokens.double()), tokens.double()
    assert spaces[0].growable and spaces[0].name == "lift"
    grown, _ = widened(mixer, spaces, {0: split_all(spaces, (0.5, 0.5))[0]})
    assert difference(grown, mixer, inputs) <= 1e-12


def test_sums_of_channels_laid_out_otherwise_freeze_both():
    network = Net(
        lambda self, x: self.head((torch.cat([self.a(x), self.b(x)], 1) + self.c(x)).mean((2, 3))),
        a=conv(3, 2), b=conv(3, 3), c=conv(3, 5), head=nn.Linear(5, 4),
    )  # fmt: skip
    spaces = trace(network, pictures(2, dtype=torch.float32))
    assert all("meets channels laid out otherwise" in spaces[place].frozen for place in range(3))
    odd = Net(lambda self, x: self.head(self.a(x).mean((2, 3)) * x[:, :1, 0, 0]), a=conv(3, 2), head=nn.Linear(2, 4))
    assert trace(odd, pictures(2, dtype=torch.float32))[0].growable
    wide = Net(
        lambda self, x: self.head((self.a(x) * self.b(x)).flatten(1)),
        a=conv(3, 1),
        b=conv(3, 3),
        head=nn.Linear(192, 4),
    )
    assert "another shape" in trace(wide, pictures(2, dtype=torch.float32))[0].frozen


def test_weights_used_outside_their_layer_freeze_its_channels():
    tied = Net(
        lambda self, x: self.head(F.linear(torch.tanh(self.inner(torch.tanh(self.lift(x)))), self.inner.weight.t())),
        lift=nn.Linear(5, 6), inner=nn.Linear(6, 3), head=nn.Linear(6, 4),
    )  # fmt: skip
    spaces = trace(tied, torch.randn(2, 5))
    assert spaces[0].frozen == "inner.weight is shared with another layer" and not spaces[1].growable
    scale = nn.Parameter(torch.ones(4, 1, 1))
    both = between(lambda s, h: F.silu(s.two(h * s.scale)) * s.scale, two=conv(4, 4), scale=scale)
    assert [space.frozen for space in trace(both, pictures(2)).spaces[:2]] == ["scale is shared with another layer"] * 2


def test_numbers_of_groups_that_meet_are_combined():
    network = settled(
        nn.Sequential(
            conv(3, 12, groups=3), nn.SiLU(), conv(12, 4, groups=4), nn.SiLU(), nn.Flatten(), nn.Linear(256, 4)
        )
    )
    spaces, inputs = trace(network, pictures(2)), pictures()
    assert [space.groups for space in spaces.spaces] == [12, 4, 1] or [space.groups for space in spaces.spaces] == [
        4,
        1,
    ]
    grown, _ = widened(network, spaces, split_all(spaces, (0.5, 0.5)))
    assert difference(grown, network, inputs) <= 1e-12
    odd = nn.Sequential(conv(6, 6, groups=2), conv(6, 3, groups=3))
    assert trace(settled(odd), pictures(2, 6))[0].groups == 6
