"""Point clouds from a stranger's file: read when they are what they say, refused in a sentence otherwise."""

import io
import zipfile

import numpy as np
import pytest
import torch

from studio.core.seeds import generator_from
from studio.files.datasets import read_arrays
from studio.problems.growth_images import growth_images
from studio.problems.point_clouds import FILE, POINTS, point_clouds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that STUDIO_DATA names."""
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path))
    (tmp_path / FILE).parent.mkdir()
    point_clouds.cache_clear()
    yield tmp_path
    point_clouds.cache_clear()


def clouds(count=12):
    """A tiny set: two classes that differ in how flat they are."""
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 1024, 3)).astype(np.float16)
    points[::2, :, 1] *= np.float16(0.1)
    split = np.array(["train", "train", "train", "train", "test", "test"] * (count // 6))
    labels = np.arange(count, dtype=np.uint8) % 2
    return {"points": points, "labels": labels, "classes": np.array(["flat", "round"]), "split": split}


def pack(folder, arrays):
    np.savez_compressed(folder / FILE, **arrays)
    return folder / FILE


def test_the_parts_are_read_as_they_are_marked(folder):
    arrays = clouds()
    pack(folder, arrays | {"rgb": np.zeros((12, 2, 3), np.uint8)})
    found = point_clouds()
    assert found.classes == ("flat", "round") and found.points.shape == (8, 3, POINTS)
    tested = np.flatnonzero(arrays["split"] == "test")
    expected = arrays["points"][tested, :POINTS].astype(np.float32).transpose(0, 2, 1)
    assert np.array_equal(found.test_points.numpy(), expected) and found.test_points.dtype == torch.float32
    assert np.array_equal(found.test_labels.numpy(), arrays["labels"][tested])
    flat = found.points[:, 1].abs().amax(dim=1) < 0.1
    assert torch.equal(flat, found.labels == 0), "shuffled together"


def test_a_pointnet_learns_from_them(folder):
    pack(folder, clouds(60))
    problem = growth_images("point-clouds", "pointnet", "silu", "max", 40, 20, 0)
    assert problem.shape == (3, 256) and len(problem.test_inputs) == 20 and problem.inputs.abs().max() <= 0.5
    network = problem.network(None, generator_from(0, "net"))
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for step in range(40):
        inputs, labels = problem.batch(step)
        optimiser.zero_grad()
        problem.loss(network(inputs), labels).backward()
        optimiser.step()
    assert problem.accuracy(network) > 0.9
    with pytest.raises(ValueError, match="between 2 and 40 for data 'point-clouds', got 41"):
        growth_images("point-clouds", "pointnet", "silu", "max", 41, 20, 0)


def far(points):
    points[3, 100, 1] = 2
    return points


def lost(points):
    points[3, 100, 1] = np.nan
    return points


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda a: {"points": far(a["points"])}, "not finite or leave the unit ball"),
        (lambda a: {"points": lost(a["points"])}, "not finite or leave the unit ball"),
        (lambda a: {"points": a["points"][:, :512]}, "must hold 1,024 points a label"),
        (lambda a: {"points": a["points"][:-1]}, "must hold 1,024 points a label"),
        (lambda a: {"points": a["points"].astype(np.float32)}, "points must hold float16"),
        (lambda a: {"labels": a["labels"] + np.uint8(1)}, "labels from 0 to 1 in one row"),
        (lambda a: {"labels": a["labels"][:0]}, "labels from 0 to 1 in one row"),
        (lambda a: {"split": np.array(["train"] * 12)}, "shapes to train and shapes to test on"),
        (lambda a: {"split": np.array(["train", "test", "other"] * 4)}, "says train or test for every shape"),
        (lambda a: {"split": a["split"][:5]}, "says train or test for every shape"),
        (lambda a: {"classes": np.array(["flat"])}, "must name 2 to 256 classes"),
        (lambda a: {"classes": np.array(["flat", "flat"])}, "a name of its own"),
        (lambda a: {"classes": np.array(["flat", "ro\nund"])}, "a name of its own that can be read"),
        (lambda a: {"classes": np.array(["flat", "\ud800"])}, "a name of its own that can be read"),
        (lambda a: {"classes": np.array(["flat", "x" * 65])}, "classes must hold str"),
        (lambda a: {"classes": np.array(["flat", "round"], dtype=">U5")}, "classes must hold str"),
        (lambda a: {"classes": np.array([b"flat", b"round"])}, "classes must hold str"),
        (lambda a: {"classes": np.array(["flat", {}], dtype=object)}, "classes must hold str"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(change, fault, folder):
    arrays = clouds()
    pack(folder, arrays | change(arrays))
    with pytest.raises(ValueError, match=fault):
        point_clouds()


def test_a_missing_file_and_a_missing_array_are_named(folder):
    with pytest.raises(ValueError, match=r"objects_pc1024\.npz in the folder that STUDIO_DATA names: put it there"):
        point_clouds()
    pack(folder, {"points": clouds()["points"]})
    with pytest.raises(ValueError, match=r"not a readable \.npz with points, labels, classes, split"):
        point_clouds()


def test_text_that_is_no_unicode_is_refused(tmp_path):
    path = tmp_path / "hostile.npz"

    def packed(descr, data, shape=(2,)):
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("names.npy", buffer.getvalue() + data)
        return path

    good = np.array(["äb", "c"]).tobytes()
    assert read_arrays(packed("<U2", good), {"names": "str"})["names"].tolist() == ["äb", "c"]
    for descr, data, fault in (
        ("<U2", np.array([1, 2, 3, 0x110000], dtype="<u4").tobytes(), "text that is no Unicode"),
        ("<U2", good[:-1], "holds 15 bytes"),
        ("<U0", b"", "must hold str"),
        ("<U64000000", good, "must hold str"),
    ):
        with pytest.raises(ValueError, match=fault):
            read_arrays(packed(descr, data), {"names": "str"})
