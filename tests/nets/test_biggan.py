"""Our BigGAN against the package whose weights it reads: same names, same images, stricter manners."""

import json

import pytest
import torch

from studio.nets.biggan import (
    BigGAN,
    BigGANConfig,
    fold_spectral_norm,
    load_biggan,
    save_biggan,
    unfold_spectral_norm,
)

package = pytest.importorskip("pytorch_pretrained_biggan")

TINY = BigGANConfig(
    output_dim=16,
    z_dim=12,
    class_embed_dim=12,
    channel_width=8,
    num_classes=5,
    n_stats=11,
    layers=((True, 16, 8), (False, 8, 4), (True, 4, 2), (False, 2, 1)),
    attention_layer_position=2,
)


def package_network(config: BigGANConfig, seed: int = 0) -> torch.nn.Module:
    """A package generator with random weights and settled spectral norms."""
    torch.manual_seed(seed)
    network = package.BigGAN(package.BigGANConfig(**json.loads(config.to_json())))
    with torch.no_grad():
        network.generator.bn.weight.uniform_(0.5, 1.5)
        network.generator.bn.bias.zero_()
        for name, buffer in network.named_buffers():
            if name.endswith("running_means"):
                buffer.normal_(0, 0.1)
            if name.endswith("running_vars"):
                buffer.uniform_(0.5, 1.5)
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.3)
        for _ in range(15):
            network.train()(torch.randn(2, config.z_dim), torch.eye(config.num_classes)[:2], 1.0)
    return network.eval().requires_grad_(False)


def write(network: torch.nn.Module, folder) -> None:
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(TINY.to_json())


def inputs(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, TINY.z_dim, generator=generator), torch.eye(TINY.num_classes)[:n]


@pytest.mark.parametrize("truncation", [1.0, 0.4, 0.1])
def test_the_package_gives_the_same_images(tmp_path, truncation):
    theirs = package_network(TINY)
    write(theirs, tmp_path)
    ours = load_biggan(tmp_path)
    z, classes = inputs()
    images = ours.generate(z, classes, truncation)
    assert images.shape == (3, 3, 16, 16)
    torch.testing.assert_close(images, theirs(z, classes, truncation), atol=2e-5, rtol=1e-4)


def test_between_two_levels_the_package_swaps_the_weights_and_we_do_not(tmp_path):
    theirs = package_network(TINY)
    write(theirs, tmp_path)
    ours = load_biggan(tmp_path)
    z, classes = inputs()
    expected = theirs(z, classes, 0.77)
    assert not torch.allclose(ours.generate(z, classes, 0.77), expected, atol=1e-4)
    faithful = BigGAN(TINY, package_interpolation=True)
    faithful.load_state_dict(ours.state_dict())
    torch.testing.assert_close(faithful.generate(z, classes, 0.77), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.generate(z, classes, 0.77), theirs(z, classes, 0.73), atol=2e-5, rtol=1e-4)


def test_what_we_save_the_package_reads(tmp_path):
    torch.manual_seed(3)
    ours = BigGAN(TINY).eval().requires_grad_(False)
    save_biggan(ours, tmp_path, torch.float32)
    again = load_biggan(tmp_path)
    z, classes = inputs()
    images = ours.generate(z, classes)
    assert torch.isfinite(images).all()
    torch.testing.assert_close(again.generate(z, classes), images, atol=2e-5, rtol=1e-4)
    torch.save(unfold_spectral_norm(ours.state_dict()), tmp_path / "pytorch_model.bin")
    theirs = package.BigGAN.from_pretrained(str(tmp_path)).eval()
    assert theirs.state_dict().keys() == unfold_spectral_norm(ours.state_dict()).keys()
    torch.testing.assert_close(theirs(z, classes, 1.0), images, atol=2e-5, rtol=1e-4)


def test_half_precision_files_give_nearly_the_same_images(tmp_path):
    ours = BigGAN(TINY).eval().requires_grad_(False)
    save_biggan(ours, tmp_path)
    z, classes = inputs()
    torch.testing.assert_close(
        load_biggan(tmp_path).generate(z, classes), ours.generate(z, classes), atol=1e-2, rtol=0.0
    )


def test_the_full_size_names_and_shapes_are_the_package_s():
    config = BigGANConfig()
    with torch.device("meta"):
        ours, theirs = BigGAN(config), package.BigGAN(package.BigGANConfig())
    assert sum(parameter.numel() for parameter in ours.parameters()) == pytest.approx(50.4e6, rel=0.01)
    assert config.image_size == 128
    plain = {
        name.removesuffix("_orig"): value.shape
        for name, value in theirs.state_dict().items()
        if not name.endswith(("weight_u", "weight_v"))
    }
    assert plain == {name: value.shape for name, value in ours.state_dict().items()}


def test_a_loaded_generator_is_frozen_and_differentiable_in_its_inputs(tmp_path):
    save_biggan(BigGAN(TINY), tmp_path)
    ours = load_biggan(tmp_path)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    z, classes = inputs()
    y = ours.embed(classes).requires_grad_()
    z.requires_grad_()
    ours(z, y).square().mean().backward()
    assert z.grad is not None and y.grad is not None
    assert z.grad.abs().sum() > 0 and y.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda state: state.pop("generator.gen_z.bias"), "lack generator.gen_z.bias"),
        (lambda state: state.update({"odd": torch.zeros(2)}), "unexpected odd"),
        (lambda state: state.update({"embeddings.weight": torch.zeros(3, 3)}), "another shape for embeddings.weight"),
        (lambda state: state.pop("generator.gen_z.weight_u"), "lack generator.gen_z.weight_u"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, change, words):
    state = package_network(TINY).state_dict()
    change(state)
    torch.save(dict(state), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(TINY.to_json())
    with pytest.raises(ValueError, match=words):
        load_biggan(tmp_path)


def test_a_missing_v_is_recomputed():
    state = unfold_spectral_norm(BigGAN(TINY).state_dict())
    name = "generator.gen_z.weight"
    rows, left = state[f"{name}_orig"], torch.nn.functional.normalize(state[f"{name}_u"], dim=0)
    without = {f"{name}_orig": rows, f"{name}_u": left}
    size = (rows.T @ left).norm()
    torch.testing.assert_close(fold_spectral_norm(without)[name], rows / size)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not JSON"),
        ("[]", "one object"),
        ('{"z_dim": 12.5}', "z_dim"),
        ('{"layers": 3}', "layers"),
        ('{"layers": [[true, 8, 4]]}', "block 0"),
        ('{"z_dim": 64}', "class_embed_dim"),
        (" " * 70_000, "larger than"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_biggan(tmp_path)


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="lacks config.json"):
        load_biggan(tmp_path)
    (tmp_path / "config.json").write_text(TINY.to_json())
    with pytest.raises(ValueError, match="weights are missing"):
        load_biggan(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="not readable"):
        load_biggan(tmp_path)


@pytest.mark.parametrize("truncation", [0.0, -1.0, 1.5])
def test_truncation_outside_its_range_is_refused(truncation):
    with pytest.raises(ValueError, match="truncation must be above 0"):
        BigGAN(TINY)(*[torch.zeros(1, TINY.z_dim)] * 2, truncation)
