"""Data sets: what they are, where they come from, and that a stranger's file can do no harm."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.seeds import generator_from
from studio.files.datasets import decoded, read_arrays
from studio.problems.classification import TEST_NOISE, classification, with_wrong_labels
from studio.problems.digits import APART, labelled


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that STUDIO_DATA names."""
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path))
    labelled.cache_clear()
    yield tmp_path
    labelled.cache_clear()


def pack(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def greys(count, seed=0):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return {"images": images, "labels": np.arange(count, dtype=np.uint8) % 10}


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), labelled("digits")
    assert np.array_equal(ours.inputs.numpy() * 16, theirs.data) and np.array_equal(ours.labels.numpy(), theirs.target)
    assert ours.shape == (8, 8, 1) and ours.inputs.min() >= 0 and ours.inputs.max() <= 1


@pytest.mark.parametrize("name", ["digits", "moons", "spirals"])
def test_the_split_is_seeded_and_apart(name):
    data = labelled(name)
    one, same, other = (classification(data, seed, 100, 0.1, (8,), 20) for seed in (1, 1, 2))
    assert torch.equal(one.inputs, same.inputs) and torch.equal(one.noisy, same.noisy)
    assert torch.equal(one.foreign, same.foreign) and not torch.equal(one.inputs, other.inputs)
    assert len(one.inputs) + len(one.test_inputs) == len(data.inputs)
    both = torch.cat((one.inputs, one.test_inputs))
    assert torch.equal(both.sort(dim=0).values, data.inputs.sort(dim=0).values)
    assert (one.noisy - one.test_inputs).std().item() == pytest.approx(TEST_NOISE, rel=0.05)
    assert len(one.foreign) > 50


def test_wrong_labels_are_as_many_as_asked_and_all_wrong():
    labels = torch.arange(400) % 10
    changed = with_wrong_labels(labels, 10, 0.1, generator_from(0, "wrong"))
    assert (changed != labels).sum() == 40 and ((changed >= 0) & (changed < 10)).all()
    assert torch.equal(with_wrong_labels(labels, 10, 0.0, generator_from(0, "wrong")), labels)


def test_shuffled_digits_keep_their_values_and_far_points_their_distance():
    digits = classification(labelled("digits"), 0, 400, 0.1, (8,), 20)
    assert torch.equal(digits.foreign.sort(dim=1).values, digits.test_inputs.sort(dim=1).values)
    assert not torch.equal(digits.foreign, digits.test_inputs)
    moons = classification(labelled("moons"), 0, 200, 0.1, (8,), 20)
    assert torch.cdist(moons.foreign, moons.inputs).min() > APART


def test_a_batch_has_no_repeats_and_may_be_everything():
    problem = classification(labelled("moons"), 0, 50, 0.0, (8,), 20)
    inputs, labels = problem.batch(generator_from(0, "batch"))
    assert len(inputs) == len(labels) == 20 and len(torch.unique(inputs, dim=0)) == 20
    whole = classification(labelled("moons"), 0, 50, 0.0, (8,), 64)
    assert torch.equal(whole.batch(generator_from(0, "batch"))[0], whole.inputs)


def test_training_must_leave_a_test_set():
    with pytest.raises(ValueError, match="training must leave examples to test on: there are 1,797, got 1,797"):
        classification(labelled("digits"), 0, 1797, 0.1, (8,), 20)
    with pytest.raises(ValueError, match="data must be one of digits, moons"):
        labelled("letters")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar-10"])
def test_what_is_missing_and_where_to_put_it(name, folder, monkeypatch):
    with pytest.raises(ValueError, match=r"images/.*_train\.npz in the folder that STUDIO_DATA names: put it there"):
        labelled(name)
    monkeypatch.delenv("STUDIO_DATA")
    with pytest.raises(ValueError, match="set STUDIO_DATA to the folder that holds it, or choose data 'digits'"):
        labelled(name)


def test_fashion_mnist_from_a_folder(folder):
    pack(folder / "images/fashion_mnist/fashion_mnist_train.npz", **greys(50))
    pack(folder / "images/fashion_mnist/fashion_mnist_test.npz", **greys(30, 1))
    data = labelled("fashion-mnist")
    problem = classification(data, 0, 40, 0.1, (8,), 20)
    assert data.inputs.shape == (50, 784) and "shuffled" in data.foreign_kind and len(problem.test_inputs) == 30
    pack(folder / "images/mnist/mnist_test4000.npz", **greys(25, 2))
    labelled.cache_clear()
    assert "MNIST" in labelled("fashion-mnist").foreign_kind
    assert len(classification(labelled("fashion-mnist"), 0, 40, 0.1, (8,), 20).foreign) == 25


def test_cifar_from_a_folder(folder):
    files = []
    for shade in range(12):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (20 * shade, 0, 255)).save(buffer, "PNG")
        files.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    offsets = np.cumsum([0, *map(len, files)]).astype(np.int64)
    arrays = {"blob": np.concatenate(files), "offsets": offsets, "labels": np.arange(12, dtype=np.uint8) % 10}
    for part in ("train", "test"):
        pack(folder / f"images/cifar10/cifar10_{part}.npz", **arrays)
    data = labelled("cifar-10")
    assert data.inputs.shape == (12, 768)
    assert torch.allclose(data.inputs[3, :3], torch.tensor([60 / 255, 0.0, 1.0]))
    pack(folder / "images/cifar10/cifar10_train.npz", **(arrays | {"offsets": offsets[:-2]}))
    labelled.cache_clear()
    with pytest.raises(ValueError, match="offsets that do not fit its labels"):
        labelled("cifar-10")


@pytest.mark.parametrize(
    "arrays, fault",
    [
        ({"images": np.zeros((5, 28, 27), np.uint8), "labels": np.zeros(5, np.uint8)}, "28 x 28"),
        ({"images": np.zeros((5, 28, 28), np.float32), "labels": np.zeros(5, np.uint8)}, "must hold uint8"),
        ({"images": np.zeros((5, 28, 28), np.uint8), "labels": np.full(5, 77, np.uint8)}, "labels from 0 to 9"),
        ({"images": np.zeros((5, 28, 28), np.uint8)}, "not a readable .npz with images, labels"),
        ({"images": np.array([{"a": 1}], dtype=object), "labels": np.zeros(1, np.uint8)}, "must hold uint8"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(arrays, fault, folder):
    pack(folder / "images/fashion_mnist/fashion_mnist_train.npz", **arrays)
    with pytest.raises(ValueError, match=fault):
        labelled("fashion-mnist")


def header(shape, dtype="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_a_hostile_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "hostile.npz"

    def packed(data, names=("images",)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(f"{name}.npy", data)
        return path

    for data, fault in (
        (header((10**12,)) + b"few", "holds 3 bytes"),
        (header((-3,)) + b"few", "holds 3 bytes"),
        (b"nothing of the kind", "no readable header"),
        (header((3,))[:40], "no readable header"),
        (header((2**21,)) + bytes(2**21), "unpacks to over 1 MB"),
    ):
        with pytest.raises(ValueError, match=fault):
            read_arrays(packed(data), {"images": "uint8"}, limit=2**20)
    with pytest.raises(ValueError, match="at most 16"):
        read_arrays(packed(b"", [f"a{i}" for i in range(17)]), {"images": "uint8"})
    whole = bytearray(packed(bytes(range(256)) * 40).read_bytes())
    whole[60:80] = bytes(20)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        read_arrays(path, {"images": "uint8"})
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        read_arrays(path, {"images": "uint8"})
    with pytest.raises(ValueError, match="at most 0 are read"):
        read_arrays(path, {"images": "uint8"}, limit=4)


def test_hostile_pictures_are_refused():
    blob = np.frombuffer(b"not a picture", dtype=np.uint8)
    with pytest.raises(ValueError, match="no readable PNG or JPEG"):
        decoded(blob, np.array([0, 13]), [0], 32)
    with pytest.raises(ValueError, match="outside its file"):
        decoded(blob, np.array([0, 14]), [0], 32)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32)).save(buffer, "PNG")
    big = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    with pytest.raises(ValueError, match="40 x 32, not 32 x 32"):
        decoded(big, np.array([0, len(big)]), [0], 32)
