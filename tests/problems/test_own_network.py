"""A network of one's own grows like those of the house, and its seed stays as it was."""

import copy

import pytest
import torch
from torch import nn

from studio.core.problems import GrowthProblem
from studio.core.runs import last, record
from studio.core.seeds import generator_from
from studio.files.frames import snapshot_bytes
from studio.methods.growing import growing
from studio.methods.growth_round import GrowthConfig
from studio.nets.spaces import Axis, Segment, declared
from studio.problems.own_network import OwnNetwork


class Residual(nn.Module):
    """A stem, a grouped block inside a residual, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.grouped, self.back = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        stem = nn.functional.silu(self.stem(x))
        inner = nn.functional.silu(self.grouped(nn.functional.silu(self.inner(stem))))
        return self.head((stem + self.back(inner)).mean(dim=(2, 3)))


@pytest.fixture
def own():
    torch.manual_seed(1)
    inputs = torch.randn(90, 1, 6, 6)
    labels = (inputs[:, 0, :3].sum(dim=(1, 2)) > 0).long() + (inputs[:, 0, 3:].sum(dim=(1, 2)) > 0).long()
    return OwnNetwork(Residual(), inputs[:60], labels[:60], inputs[60:], labels[60:], batch_size=25)


@pytest.mark.parametrize("method", ["s2d", "s3d", "energy", "random", "new"])
def test_it_grows_and_goes_on_from_any_step(own, method):
    before = copy.deepcopy(own.seed_network.state_dict())
    config = GrowthConfig(method=method, rounds=2, stage=4, share=0.6)
    assert isinstance(own, GrowthProblem)
    snapshots = record(growing(own, config, generator_from(0, "own")))
    assert sum(snapshots[-1].widths) > sum(snapshots[0].widths)
    assert all(width % 2 == 0 for width in snapshots[-1].widths[1:3]), "both groups grow alike"
    for middle in (3, 5, 9):
        again = last(growing(own, config, generator_from(0, "own"), snapshots[middle]))
        assert snapshot_bytes(again) == snapshot_bytes(snapshots[-1])
    assert all(torch.equal(part, before[name]) for name, part in own.seed_network.state_dict().items())


def test_batches_and_probes(own):
    sizes = [len(own.batch(step)[1]) for step in range(3)]
    assert sizes == [20, 20, 20] and torch.equal(own.batch(4)[0], own.batch(4)[0])
    assert not torch.equal(own.batch(0)[0], own.batch(3)[0]), "epochs are shuffled anew"
    seen = torch.cat([own.probe(0)[0], own.probe(1)[0]]).flatten(1)
    assert len(seen.unique(dim=0)) == 60
    assert 0 <= own.accuracy(own.seed_network) <= 1


def test_widths_that_do_not_fit_are_named(own):
    with pytest.raises(ValueError, match="widths must be"):
        own.network((3,), torch.Generator())


class Branching(nn.Module):
    """Cannot be traced: which way it goes depends on the data."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.second(hidden) if hidden.sum() < 1e9 else hidden


def by_hand(network):
    one = (Segment(0),)
    axes = [
        Axis("first.weight", 0, "writer", one), Axis("first.bias", 0, "writer", one),
        Axis("second.weight", 1, "reader", one),
    ]  # fmt: skip
    return declared(network, axes, [network.first.out_features])


def test_a_network_that_cannot_be_traced_grows_by_declared_spaces():
    torch.manual_seed(3)
    inputs = torch.randn(80, 4)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    own = OwnNetwork(Branching(), inputs[:60], labels[:60], inputs[60:], labels[60:], batch_size=60, declare=by_hand)
    config = GrowthConfig(method="s3d", rounds=2, stage=20, rate=0.05, share=0.6, eps=0.05)
    snapshots = record(growing(own, config, generator_from(0, "own")))
    assert snapshots[-1].widths[0] > 3 and snapshots[-1].scored
    ratios = [m / p for s in snapshots for m, p in zip(s.split_measured, s.split_predicted, strict=True)]
    assert ratios and all(0.5 < ratio < 1.5 for ratio in ratios[:1])
    again = last(growing(own, config, generator_from(0, "own"), snapshots[22]))
    assert snapshot_bytes(again) == snapshot_bytes(snapshots[-1])
