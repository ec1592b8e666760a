"""Pretrained classifiers are read from a file of the right name and checksum, and nothing else is."""

import hashlib
import pickle

import pytest
import torch

from studio.files.weights import checkpoint, load_tensors
from studio.nets import torchvision_models
from studio.nets.torchvision_models import MODELS, torchvision_architecture, torchvision_model, weights_file


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts bytes where weights are looked for, as the file of every network; a wrong name may be given."""
    monkeypatch.setenv("STUDIO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def publish_(data, digits="", folder="weights"):
        name = f"network-{digits or hashlib.sha256(data).hexdigest()[:8]}.pth"
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        monkeypatch.setattr(torchvision_models, "weights_file", lambda model: name)
        return path

    return publish_


def drawn(name="squeezenet1_1"):
    network = torchvision_architecture(name)
    generator = torch.Generator().manual_seed(0)
    for part in network.parameters():
        part.data.normal_(0, 0.05, generator=generator)
    return network


def saved(state, path, **options):
    torch.save(state, path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("folder", ["weights", "torch/hub/checkpoints"])
def test_a_file_of_the_right_checksum_is_read(publish, tmp_path, folder, modern):
    network = drawn()
    publish(saved(network.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=modern), folder=folder)
    found = torchvision_model("squeezenet1_1")
    assert not found.training and found is torchvision_model("squeezenet1_1"), "it is read once"
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(inputs), network.eval()(inputs)) and found(inputs).std() > 0


def test_old_names_of_dense_layers_are_understood(publish, tmp_path):
    network = drawn("densenet121")
    state = {}
    for key, part in network.state_dict().items():
        if "num_batches_tracked" not in key:
            inner = "denselayer" in key
            state[key.replace("norm", "norm.", 1).replace("conv", "conv.", 1) if inner else key] = part
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    publish(saved(state, tmp_path / "a.pth"))
    found = torchvision_model("densenet121").state_dict()
    assert all(torch.equal(found[key], part) for key, part in network.state_dict().items())


def test_files_are_named_with_the_start_of_their_checksum():
    for name in MODELS:
        file = weights_file(name)
        digits = file.removesuffix(".pth").rpartition("-")[2]
        assert file.startswith(name) and len(digits) == 8 and int(digits, 16) >= 0
    with pytest.raises(ValueError, match="resnet18, resnet50"):
        torchvision_architecture("resnet19")


def test_what_is_not_there_or_another_file_is_refused(publish, tmp_path):
    with pytest.raises(ValueError, match=r"resnet18-\w{8}.pth is not on this machine: put it into .*weights or into"):
        torchvision_model("resnet18")
    path = publish(b"weights", digits="00000000")
    with pytest.raises(ValueError, match="does not begin with 00000000"):
        torchvision_model("resnet18")
    right = publish(b"weights", folder="torch/hub/checkpoints")
    assert checkpoint(right.name) == right and path.is_file()


class Code:
    """Runs when it is unpickled, unless nothing is."""

    def __reduce__(self):
        return pytest.fail, ("code in a file was run",)


def test_damaged_files_and_those_with_code_are_refused_in_a_sentence(publish, tmp_path):
    whole = saved(drawn().state_dict(), tmp_path / "a.pth")
    code = saved({"a": Code()}, tmp_path / "b.pth")
    for data in (b"", whole[:5000], whole[: len(whole) // 2], code, pickle.dumps(Code())):
        publish(data)
        with pytest.raises(ValueError, match="are not readable.*fetch the file again"):
            torchvision_model("squeezenet1_1")
    publish(saved({"a": torch.zeros(2)}, tmp_path / "c.pth"))
    with pytest.raises(ValueError, match="another network than squeezenet1_1"):
        torchvision_model("squeezenet1_1")


def test_tensors_that_are_no_zip_are_read_too(tmp_path):
    saved({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_tensors(tmp_path / "old.pth")["a"], torch.ones(3))
