"""CLIP, frozen and ready to be optimised through: pictures and words become directions of one space."""

__all__ = ["Clip", "check_clip_state", "load_clip"]

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from studio.files.weights import load_tensors
from studio.nets.torchvision_compat import import_open_clip

CONFIG_NAMES = ("open_clip_config.json",)
STATE_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CONFIG_LIMIT = 256 * 1024
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
# ViT-B/32 as OpenAI trained it: its activation is x * sigmoid(1.702 x), which open_clip calls quick_gelu.
VIT_B_32 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


class Clip:
    """A frozen CLIP: `size` is the side of the pictures it takes, `dim` the length of its features."""

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...] = OPENAI_MEAN, std: tuple[float, ...] = OPENAI_STD
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        tower: Any = network
        size = tower.visual.image_size
        self.size = int(size[0] if isinstance(size, tuple | list) else size)
        self._tokenizer: Any = None
        like = next(network.parameters())
        self.device, self.dtype = like.device, like.dtype
        self.dim = int(tower.token_embedding.weight.shape[1])
        projection = tower.text_projection
        if projection is not None:
            self.dim = int(projection.weight.shape[0] if isinstance(projection, nn.Linear) else projection.shape[1])
        self._mean = torch.tensor(mean, device=self.device, dtype=self.dtype).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device, dtype=self.dtype).view(3, 1, 1)

    def encode_images(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Return unit features of pictures in [0, 1] at CLIP's own size, differentiable in the pixels."""
        if tuple(pixels.shape[1:]) != (3, self.size, self.size):
            got = tuple(pixels.shape[1:])
            raise ValueError(f"this CLIP takes pictures of 3 x {self.size} x {self.size}, got {got}")
        pixels = (pixels.to(self.dtype) - self._mean) / self._std
        return F.normalize(self.network.encode_image(pixels), dim=-1)  # type: ignore[operator]

    def encode_text(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """Return unit features of texts; what is longer than CLIP's context is cut at its end."""
        if self._tokenizer is None:
            self._tokenizer = import_open_clip().SimpleTokenizer(context_length=self.network.context_length)
        tokens = self._tokenizer(texts).to(self.device)
        with torch.no_grad():
            features = self.network.encode_text(tokens)  # type: ignore[operator]
        return F.normalize(features, dim=-1)


def load_clip(path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Clip:
    """Return the frozen CLIP stored in an open_clip folder, or in OpenAI's own archive ``ViT-B-32.pt``.

    The archive must have been verified before (`studio.files.weights.find` does): opening it runs its code.
    Raises `ValueError`, in one sentence, where a file is absent, damaged or does not fit its configuration.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".pt":
        return _built(VIT_B_32, _openai_state(path), path, {}, device, dtype)
    config, state_path = _config(path), next((path / n for n in STATE_NAMES if (path / n).is_file()), None)
    if state_path is None:
        raise ValueError(f"CLIP's weights are missing: put {STATE_NAMES[0]} into {path}")
    state = load_tensors(state_path)
    return _built(config["model_cfg"], state, path, config.get("preprocess_cfg", {}), device, dtype)


def check_clip_state(wanted: dict[str, Tensor], state: dict[str, Tensor], place: Path) -> None:
    """Raise a `ValueError` naming the first entries that are missing, unexpected or misshapen."""
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [name for name, value in wanted.items() if name in state and state[name].shape != value.shape]
    for words, names in (("lack", missing), ("hold the unexpected", extra), ("have another shape for", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"CLIP's weights in {place} {words} {', '.join(names[:3])}{more}: fetch the files again")


def _built(
    model: dict[str, Any], state: dict[str, Tensor], place: Path, preprocess: dict[str, Any],
    device: torch.device | str, dtype: torch.dtype,
) -> Clip:  # fmt: skip
    try:
        network = import_open_clip().CLIP(**model)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"CLIP's configuration in {place} describes no network ({error}); fetch it again") from None
    check_clip_state(network.state_dict(), state, place)
    network.load_state_dict(state)
    mean, std = preprocess.get("mean", OPENAI_MEAN), preprocess.get("std", OPENAI_STD)
    return Clip(network.to(device, dtype), tuple(mean), tuple(std))


def _config(folder: Path) -> dict[str, Any]:
    path = next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"CLIP's configuration is missing: put {CONFIG_NAMES[0]} into {folder}")
    if path.stat().st_size > CONFIG_LIMIT:
        raise ValueError(f"{path} is larger than {CONFIG_LIMIT:,} bytes, so it is no configuration of CLIP")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["model_cfg"], dict):
            raise TypeError("model_cfg is no object")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an open_clip configuration ({error}); fetch it again") from None
    return record


def _openai_state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
    except RuntimeError:
        raise ValueError(f"{path} is not OpenAI's archive of ViT-B/32; fetch it again") from None
    extra = ("input_resolution", "context_length", "vocab_size")
    return {name: value.float() for name, value in state.items() if name not in extra}
