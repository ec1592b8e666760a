"""CLIP: its file formats, its frozen features, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_nets import SMALL_CLIP, small_clip

from studio.nets.clip import OPENAI_MEAN, Clip, load_clip
from studio.nets.torchvision_compat import import_open_clip


def saved(folder: Path, clip: Clip, **changes: torch.Tensor) -> Path:
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    record = {"model_cfg": SMALL_CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(record), encoding="utf-8")
    state = {name: value.contiguous() for name, value in (clip.network.state_dict() | changes).items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def test_a_saved_folder_gives_the_same_features(tmp_path: Path) -> None:
    clip = small_clip()
    again = load_clip(saved(tmp_path, clip))
    pixels = torch.rand(2, 3, 32, 32)
    shown = (pixels - 0.5) / 0.25 * torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    shown = shown + torch.tensor(OPENAI_MEAN).view(3, 1, 1)
    assert torch.allclose(again.encode_images(pixels), clip.encode_images(shown), atol=1e-5)
    assert torch.equal(again.encode_text(["a fox"]), clip.encode_text(["a fox"]))


def test_it_agrees_with_open_clip_itself(tmp_path: Path) -> None:
    folder = saved(tmp_path, small_clip())
    model, _, _ = import_open_clip().create_model_and_transforms(f"local-dir:{folder}")
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = model.eval().encode_image((pixels - 0.5) / 0.25, normalize=True)
    assert torch.allclose(load_clip(folder).encode_images(pixels), wanted, atol=1e-6)


def test_features_are_unit_and_the_network_is_frozen() -> None:
    clip = small_clip()
    pixels = torch.rand(3, 3, 32, 32, requires_grad=True)
    features = clip.encode_images(pixels)
    assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-6) and clip.dim == features.shape[1]
    features.sum().backward()
    assert pixels.grad is not None and not any(p.requires_grad for p in clip.network.parameters())
    assert clip.encode_text(["x " * 5000, "\u202e"]).shape == (2, clip.dim)
    with pytest.raises(ValueError, match="3 x 32 x 32"):
        clip.encode_images(torch.rand(1, 3, 16, 16))


@pytest.mark.filterwarnings("ignore:.torch.jit.load:DeprecationWarning")
def test_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    clip = small_clip()
    with pytest.raises(ValueError, match=r"open_clip_config\.json"):
        load_clip(tmp_path)
    saved(tmp_path, clip, logit_scale=torch.zeros(3))
    with pytest.raises(ValueError, match="another shape for logit_scale"):
        load_clip(tmp_path)
    saved(tmp_path, clip, surprise=torch.zeros(3))
    with pytest.raises(ValueError, match="unexpected surprise"):
        load_clip(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="weights are missing"):
        load_clip(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("[1]")
    with pytest.raises(ValueError, match="not an open_clip configuration"):
        load_clip(tmp_path)
    (tmp_path / "ViT-B-32.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not OpenAI's archive"):
        load_clip(tmp_path / "ViT-B-32.pt")
