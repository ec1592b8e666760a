"""A folder of pictures without labels: what is read of it, what is refused, and a classifier pruned on it."""

import hashlib
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from studio.core.problems import GrowthProblem
from studio.core.runs import last
from studio.files.frames import snapshot_bytes
from studio.nets import torchvision_models
from studio.nets.network_files import network_bytes, read_network
from studio.nets.torchvision_models import torchvision_architecture, torchvision_model
from studio.problems.pictures import BYTES, picture_problem
from studio.scenes import Pruning
from studio.studies import prune
from studio.studies.prune import Prune

STUDY = Prune(
    network="squeezenet1_1", data="pictures", training=0, after=0, macs=0.5, frames=1, count=20, examples=2,
    positions=1, method="magnitude", allocation="uniform",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path))
    path = tmp_path / "pictures"
    path.mkdir()
    return path


@pytest.fixture
def eight(folder):
    """Eight pictures of several kinds and shapes, each brighter than the last."""
    random = np.random.default_rng(0)
    for place, ending in enumerate(("png", "jpg", "jpeg", "webp") * 2):
        pixels = random.integers(0, 30 * (place + 1), (40 + place, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.{ending}")
    return folder


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    for part in made.parameters():
        part.data.normal_(0, 1, generator=generator)
    return made


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A classifier with drawn weights, where torchvision's would be."""
    network, generator = torchvision_architecture("squeezenet1_1"), torch.Generator().manual_seed(0)
    for part in network.parameters():
        part.data.normal_(0, (2 / part[0].numel()) ** 0.5 if part.ndim > 1 else 0.01, generator=generator)
    torch.save(network.state_dict(), tmp_path / "drawn.pth")
    name = f"drawn-{hashlib.sha256((tmp_path / 'drawn.pth').read_bytes()).hexdigest()[:8]}.pth"
    (tmp_path / "drawn.pth").rename(tmp_path / name)
    monkeypatch.setenv("STUDIO_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torchvision_models, "weights_file", lambda model: name)
    monkeypatch.setattr(prune, "SIDE", 48)
    return network


def bomb(width, height):
    """A PNG of a few bytes that says it is as large as that."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_targets_are_what_the_network_says(eight, network):
    problem = picture_problem(network, side=24, batch=3)
    assert isinstance(problem, GrowthProblem) and problem.test_words == "of the pictures named as before"
    assert problem.inputs.shape == problem.test_inputs.shape == (4, 3, 24, 24) and len(problem.batch(0)[1]) == 2
    with torch.no_grad():
        assert torch.equal(network(problem.inputs).argmax(dim=1), problem.targets)
    assert problem.accuracy(network) == 1.0
    other = nn.Linear(3 * 24 * 24, 5)
    nn.init.zeros_(other.weight)
    other.bias.data = nn.functional.one_hot((problem.test_targets[0] + 1) % 5, 5).float()
    assert problem.accuracy(nn.Sequential(nn.Flatten(), other)) < 1.0
    assert picture_problem(network, side=24, count=5).inputs.shape[0] == 3


def test_the_middle_is_shown_in_the_units_of_imagenet(folder, network):
    for place in range(4):
        picture = Image.new("RGB", (90, 30), (255, 0, 0))
        picture.paste((0, 255, 0), (30, 0, 60, 30))
        picture.save(folder / f"{place}.png")
    inputs = picture_problem(network, side=16).inputs
    wanted = torch.tensor([-0.485 / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225]).view(1, 3, 1, 1)
    assert torch.allclose(inputs[:, :, 4:12, 4:12], wanted.expand(2, 3, 8, 8), atol=1e-4)


def test_the_seed_draws_the_half_that_tests(eight, network):
    first, again, other = (picture_problem(network, side=24, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test_inputs, again.test_inputs)
    assert not torch.equal(first.test_inputs, other.test_inputs)
    (eight / "0.png").unlink()
    assert (
        len(picture_problem(network, side=24).inputs) == 4 and len(picture_problem(network, side=24).test_inputs) == 3
    )


def test_what_is_no_picture_is_left_out(eight, network, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (eight / "link.png").symlink_to(tmp_path / "secret.png")
    (eight / "folder.png").mkdir()
    (eight / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (eight / "large.png").write_bytes(bomb(8000, 6300))
    (eight / "warned.png").write_bytes(bomb(10_000, 9_500))
    (eight / "cut.jpg").write_bytes((eight / "1.jpg").read_bytes()[:300])
    (eight / "text.png").write_text("<svg/>")
    with open(eight / "heavy.png", "wb") as file:
        file.write((eight / "0.png").read_bytes())
        file.truncate(BYTES + 1)
    Image.new("P", (50, 20)).save(eight / "clear.png", transparency=b"\x00\x80")
    problem = picture_problem(network, side=24, batch=8)
    assert len(problem.inputs) + len(problem.test_inputs) == 9


def test_too_few_pictures_are_refused_in_a_sentence(folder, network, monkeypatch):
    for place in range(3):
        Image.new("RGB", (9, 9)).save(folder / f"{place}.png")
    (folder / "bomb.png").write_bytes(bomb(60_000, 60_000))
    with pytest.raises(ValueError, match="at least 4 pictures that can be read, got 3"):
        picture_problem(network)
    with pytest.raises(ValueError, match="count must be between 4"):
        picture_problem(network, count=3)
    monkeypatch.setenv("STUDIO_DATA", str(folder))
    with pytest.raises(ValueError, match="needs the folder pictures in the folder that STUDIO_DATA names"):
        picture_problem(network)
    monkeypatch.delenv("STUDIO_DATA")
    with pytest.raises(ValueError, match="needs the folder pictures: set STUDIO_DATA"):
        picture_problem(network)


def test_a_published_classifier_is_pruned_on_pictures(eight, published):
    assert "25 layers" in STUDY.forecast() and "4 examples" in STUDY.forecast()
    snapshot = last(STUDY.run())
    assert sum(snapshot.widths) < sum(snapshot.sizes) and snapshot.curve[-1, 3] <= 0.5 * snapshot.curve[0, 3]
    assert "of the pictures named as before, 100.0% before" in snapshot.outcome
    assert not snapshot.original and not snapshot.state and len(snapshot_bytes(snapshot)) < 2**20
    scene = STUDY.view(snapshot)[0]
    assert isinstance(scene, Pruning) and sum(layer.state == "done" for layer in scene.layers) == 25
    pruned, edits = STUDY.network_of(snapshot)
    again, _ = read_network(network_bytes(pruned, edits))
    inputs = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(again.eval()(inputs), pruned(inputs)) and pruned(inputs).shape == (2, 1000)
    kept = torchvision_model("squeezenet1_1").state_dict()
    assert all(torch.equal(kept[name], part) for name, part in published.state_dict().items()), "it was changed"


def test_what_does_not_go_together_is_refused(eight, published):
    for change in ({"data": "digits"}, {"network": "vgg"}, {"network": "file"}):
        with pytest.raises(ValueError, match="choose the"):
            replace(STUDY, **change).forecast()
    for change in ({"training": 5}, {"after": 5}, {"between": 5}, {"refit": True}):
        with pytest.raises(ValueError, match="set all training to 0, refit off"):
            next(replace(STUDY, **change).run())
