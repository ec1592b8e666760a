"""Networks as files: bit for bit, with their history, and nothing in them that could run."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from studio.nets.architecture import built, described
from studio.nets.families import draw, family
from studio.nets.network_files import load_into, load_network, save_network
from studio.nets.spaces import Axis, Segment, declared, trace
from studio.nets.surgery import keep, widen, widened


class Mixed(nn.Module):
    """Convolutions, groups, a residual, a concatenation, a parameter of its own, functions and methods."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.two = nn.Conv2d(16, 8, 1, groups=2)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.head = nn.Linear(16 * 4, 3)

    def forward(self, x):
        a = functional.silu(self.norm(self.one(x)))
        b = torch.tanh(self.two(self.deep(a))) * self.scale
        z = torch.cat([a, b], dim=1)[:, :, 1:, :]
        return self.head(functional.adaptive_avg_pool2d(z, 2).view(x.size(0), -1))


def grown(network, example):
    spaces = trace(network, example)
    changes = {}
    for space in spaces.growable:
        block = spaces[space].size // spaces[space].groups
        changes[space] = widen(space, {g * block: (1.5, -0.5) for g in range(spaces[space].groups)}, spaces)
    return widened(network, spaces, changes)


@pytest.fixture
def mixed():
    torch.manual_seed(0)
    network, example = Mixed(), torch.randn(4, 3, 8, 8)
    network(example)
    return network.eval(), example


def test_a_grown_network_comes_back_bit_for_bit(tmp_path, mixed):
    network, example = mixed
    after, edits = grown(network, example)
    path = tmp_path / "grown.safetensors"
    save_network(path, after, edits)
    loaded, log = load_network(path)
    assert torch.equal(loaded.eval()(example), after(example))
    assert [edit.index for edit in log] == [edit.index for edit in edits] and len(log) > 10
    assert trace(loaded, example).widths == trace(after, example).widths
    assert not list(tmp_path.glob(".*")), "no half-written file is left"


def test_a_pruned_network_comes_back_too(tmp_path, mixed):
    network, example = mixed
    spaces = trace(network, example)
    pruned, edits = widened(network, spaces, {spaces.named("one"): keep([0, 2, 4, 7])})
    save_network(tmp_path / "p.safetensors", pruned, edits)
    loaded, _ = load_network(tmp_path / "p.safetensors")
    assert torch.equal(loaded.eval()(example), pruned(example)) and loaded.get_submodule("one").out_channels == 4


@pytest.mark.parametrize("name", ["mlp", "vgg", "mobilenet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_family_comes_back(tmp_path, name, dtype):
    widths = {"mlp": (5, 4), "vgg": (4, 6), "mobilenet": (4, 6, 5)}[name]
    network = draw(family(name, (1, 8, 8), widths, 10, "gaussian", "average"), torch.Generator()).to(dtype).eval()
    save_network(tmp_path / "n.safetensors", network)
    example = torch.randn(3, 1, 8, 8, dtype=dtype)
    assert torch.equal(load_network(tmp_path / "n.safetensors")[0].eval()(example), network(example))


class Untraceable(nn.Module):
    """Takes a branch that depends on the data, so that tracing gives up."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.second(hidden if hidden.sum() > 0 else 2 * hidden)


def test_an_untraceable_network_is_loaded_into_its_seed(tmp_path):
    seed, example = Untraceable(), torch.randn(3, 4)
    one = (Segment(0),)
    axes = [
        Axis("first.weight", 0, "writer", one),
        Axis("first.bias", 0, "writer", one),
        Axis("second.weight", 1, "reader", one),
    ]
    spaces = declared(seed, axes, [5])
    after, edits = widened(seed, spaces, {0: widen(0, {1: (0.5, 0.5)}, spaces)})
    path = tmp_path / "u.safetensors"
    save_network(path, after, edits)
    with pytest.raises(ValueError, match="load_into"):
        load_network(path)
    assert torch.equal(load_into(path, seed)[0](example), after(example))
    with pytest.raises(ValueError, match="did not grow from this network"):
        load_into(path, nn.Linear(3, 3))


def test_damaged_and_hostile_files_are_refused_in_a_sentence(tmp_path, mixed):
    path = tmp_path / "h.safetensors"
    network, _ = mixed
    save_network(path, network)
    good = path.read_bytes()
    for bad in (good[:-9], b"", b"\x80\x04pickle", good[:200]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="save the network again"):
            load_network(path)
    path.write_bytes(good)
    tensors = load_file(path)
    for architecture in ("[1", "[]", json.dumps({"modules": {}, "nodes": 3}), "[" * 10_000):
        save_file(tensors, path, metadata={"architecture": architecture})
        with pytest.raises(ValueError, match="save the network again|load_into"):
            load_network(path)
    with pytest.raises(ValueError, match="there is no file"):
        load_network(tmp_path / "missing")


def broken(description, **changes):
    copy = json.loads(json.dumps(description))
    copy.update(changes)
    return copy


def test_a_description_cannot_call_what_is_not_on_the_lists(mixed):
    good = described(mixed[0])
    nodes = good["nodes"]
    for node in (["x1", "call_function", "os.system", ["ls"], {}], ["x1", "call_method", "__class__", [], {}],
                 ["x1", "get_attr", "one.__class__", [], {}], ["a = 1", "call_method", "relu", [], {}]):  # fmt: skip
        with pytest.raises(ValueError, match="not one of those that are read"):
            built(broken(good, nodes=[nodes[0], node]))
    with pytest.raises(ValueError, match="which is not one of those"):
        built(broken(good, modules={"one": ["Sequential", {}]}))
    for size in (10**12, -(10**12), 1e300):
        with pytest.raises(ValueError, match="beyond all bounds|no readable architecture"):
            built(broken(good, modules={"one": ["Linear", {"in_features": size, "out_features": 3}]}))
    with pytest.raises(ValueError, match="parameters: at most"):
        built(broken(good, modules={"one": ["Linear", {"in_features": 10**6, "out_features": 10**6}]}))
    spoken = ["x1", "call_function", "F.relu", [], {"input=__import__('os').getcwd() or x, inplace": False}]
    with pytest.raises(ValueError, match="no name for an argument"):
        built(broken(good, nodes=[nodes[0], spoken]))
    for name in ('a"), __import__("os").getcwd(), getattr(self, "b', "forward", "one.weight", "one.__class__"):
        with pytest.raises(ValueError, match="no name for a part"):
            built(broken(good, modules=good["modules"] | {name: ["ReLU", {}]}))
    placeholder = ["x", "placeholder", "x): import os; (y", [], {}]
    with pytest.raises(ValueError, match="no name for an input"):
        built(broken(good, nodes=[placeholder]))


def test_what_cannot_be_described_is_named():
    with pytest.raises(ValueError, match="Bilinear"):
        described(nn.Sequential(nn.Linear(2, 2), Odd()))


class Odd(nn.Module):
    """A leaf that no list holds."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Bilinear(2, 2, 2)

    def forward(self, x):
        return self.inner(x, x)
