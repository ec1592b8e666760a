"""The generator of BigGAN-deep (Brock, Donahue and Simonyan, 2018, arXiv 1809.11096), ready to be optimised through.

Our own implementation of the architecture whose published PyTorch weights carry the key names of the package
pytorch-pretrained-biggan; a folder made for that package loads here, and a folder saved here loads there. What differs:

* spectral normalisation is folded into plain weights once, when the file is read, instead of at every step;
* files load strictly: a missing, unexpected or misshapen entry is refused by name;
* the statistics of the normalisation are interpolated between two truncation levels with the right weights
  (the package swaps them; ``package_interpolation=True`` gives its numbers);
* a fresh network is finite: every parameter has a defined start;
* only the three image channels of the last convolution are computed.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "BigGAN",
    "BigGANConfig",
    "fold_spectral_norm",
    "load_biggan",
    "save_biggan",
    "unfold_spectral_norm",
]

CONFIG_NAME = "config.json"
SAFE_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
CONFIG_LIMIT = 64 * 1024
BASE_SIZE = 4
BASE_MULTIPLE = 16

LAYERS_128 = (
    (False, 16, 16),
    (True, 16, 16),
    (False, 16, 16),
    (True, 16, 8),
    (False, 8, 8),
    (True, 8, 4),
    (False, 4, 4),
    (True, 4, 2),
    (False, 2, 2),
    (True, 2, 1),
)


@dataclass(frozen=True)
class BigGANConfig:
    """The shape of a generator; the defaults are BigGAN-deep at 128 x 128.

    ``layers`` holds (doubles the size?, input multiple, output multiple) of ``channel_width`` channels. The image size
    follows from the number of doublings (``image_size``); ``output_dim`` is only carried along.
    """

    output_dim: int = 128
    z_dim: int = 128
    class_embed_dim: int = 128
    channel_width: int = 128
    num_classes: int = 1000
    layers: tuple[tuple[bool, int, int], ...] = LAYERS_128
    attention_layer_position: int = 8
    eps: float = 1e-4
    n_stats: int = 51

    def __post_init__(self) -> None:
        """Raise ValueError, naming the field, where the numbers do not describe a generator."""
        for name, low, high in (
            ("z_dim", 1, 4096),
            ("channel_width", 4, 1024),
            ("num_classes", 1, 1_000_000),
            ("n_stats", 2, 10_001),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
        if self.class_embed_dim != self.z_dim:
            raise ValueError(f"class_embed_dim must equal z_dim ({self.z_dim}), got {self.class_embed_dim!r}")
        if not isinstance(self.eps, float) or not 0 < self.eps < 1:
            raise ValueError(f"eps must be a number between 0 and 1, got {self.eps!r}")
        if type(self.attention_layer_position) is not int:
            raise ValueError(f"attention_layer_position must be a whole number, got {self.attention_layer_position!r}")
        _check_layers(self.layers)

    @property
    def image_size(self) -> int:
        """Width and height of the images, in pixels."""
        return BASE_SIZE * 2 ** sum(doubles for doubles, _, _ in self.layers)

    @classmethod
    def from_json(cls, text: str) -> BigGANConfig:
        """Return the configuration a package's ``config.json`` describes; ValueError when it does not."""
        try:
            record = json.loads(text)
        except ValueError as error:
            raise ValueError(f"the generator's {CONFIG_NAME} is not JSON ({error}); fetch the file again") from None
        if not isinstance(record, dict):
            raise ValueError(f"the generator's {CONFIG_NAME} must hold one object of settings; fetch the file again")
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in record.items() if name in known}
        try:
            if "layers" in values:
                values["layers"] = tuple((bool(up), int(low), int(high)) for up, low, high in values["layers"])
        except (TypeError, ValueError):
            raise ValueError("layers must be a list of [doubles the size, input multiple, output multiple]") from None
        for name, value in values.items():
            if name != "layers" and type(value) is not (float if name == "eps" else int):
                raise ValueError(f"{name} must be a {'fraction' if name == 'eps' else 'whole number'}, got {value!r}")
        return cls(**values)

    def to_json(self) -> str:
        """Return the text of a ``config.json`` that the package reads too."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def _check_layers(layers: tuple[tuple[bool, int, int], ...]) -> None:
    if not 1 <= len(layers) <= 64:
        raise ValueError(f"layers must hold between 1 and 64 blocks, got {len(layers)}")
    expected = BASE_MULTIPLE
    for index, (_, low, high) in enumerate(layers):
        if low != expected:
            raise ValueError(f"block {index} of layers must take {expected} times the width, got {low}")
        if high not in (low, low / 2):
            raise ValueError(f"block {index} of layers must keep or halve its {low} times the width, got {high}")
        expected = high
    if expected != 1:
        raise ValueError(f"the last block of layers must give 1 times the width, got {expected}")
    if sum(bool(doubles) for doubles, _, _ in layers) > 8:
        raise ValueError("layers may double the size at most 8 times (1024 pixels)")


class BigGAN(nn.Module):
    """A class-conditional generator: z and a class embedding, both (n, z_dim), to images (n, 3, s, s) in [-1, 1]."""

    def __init__(self, config: BigGANConfig, *, package_interpolation: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Linear(config.num_classes, config.z_dim, bias=False)
        self.generator = _Generator(config)
        for module in self.modules():
            if isinstance(module, _Norm):
                module.package_interpolation = package_interpolation

    def forward(self, z: Tensor, y: Tensor, truncation: float = 1.0) -> Tensor:
        """Return images for latents ``z`` and class *embeddings* ``y``; both (n, z_dim), both differentiable."""
        if not 0 < truncation <= 1:
            raise ValueError(f"truncation must be above 0 and at most 1, got {truncation}")
        return self.generator(torch.cat((z, y), dim=1), truncation)

    def embed(self, classes: Tensor) -> Tensor:
        """Return the embeddings (n, z_dim) of class vectors (n, num_classes), one-hot or mixed."""
        return self.embeddings(classes)

    def generate(self, z: Tensor, classes: Tensor, truncation: float = 1.0) -> Tensor:
        """Return images for latents (n, z_dim) and class *vectors* (n, num_classes), as the package's forward does."""
        return self(z, self.embed(classes), truncation)


class _Generator(nn.Module):
    """The blocks between the condition (n, 2 z_dim) and the image."""

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        width, condition = config.channel_width, 2 * config.z_dim
        self.base_channels = BASE_MULTIPLE * width
        self.gen_z = nn.Linear(condition, BASE_SIZE * BASE_SIZE * self.base_channels)
        blocks: list[nn.Module] = []
        for index, (doubles, low, high) in enumerate(config.layers):
            if index == config.attention_layer_position:
                blocks.append(_Attention(width * low))
            blocks.append(_Block(width * low, width * high, bool(doubles), config))
        self.layers = nn.ModuleList(blocks)
        self.bn = _Norm(width, None, config)
        self.conv_to_rgb = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, condition: Tensor, truncation: float) -> Tensor:
        # The published weights number the base map as (height, width, channels).
        hidden = self.gen_z(condition).view(-1, BASE_SIZE, BASE_SIZE, self.base_channels).permute(0, 3, 1, 2)
        for layer in self.layers:
            hidden = layer(hidden, condition, truncation)
        hidden = F.relu(self.bn(hidden, condition, truncation))
        rgb = self.conv_to_rgb
        bias = None if rgb.bias is None else rgb.bias[:3]
        return torch.tanh(F.conv2d(hidden, rgb.weight[:3], bias, padding=1))


class _Norm(nn.Module):
    """Normalisation by stored statistics, one row per truncation level, scaled and shifted by the condition."""

    def __init__(self, channels: int, condition: int | None, config: BigGANConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.package_interpolation = False
        self.running_means: Tensor
        self.running_vars: Tensor
        self.register_buffer("running_means", torch.zeros(config.n_stats, channels))
        self.register_buffer("running_vars", torch.ones(config.n_stats, channels))
        self.conditional = condition is not None
        if condition is not None:
            self.scale = nn.Linear(condition, channels, bias=False)
            self.offset = nn.Linear(condition, channels, bias=False)
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden: Tensor, condition: Tensor, truncation: float) -> Tensor:
        mean, variance = self.statistics(truncation)
        gain = 1 + self.scale(condition) if self.conditional else self.weight[None]
        shift = self.offset(condition) if self.conditional else self.bias[None]
        gain = gain * torch.rsqrt(variance + self.eps)
        shift = (shift - mean * gain).to(hidden.dtype)
        return torch.addcmul(shift[:, :, None, None], hidden, gain.to(hidden.dtype)[:, :, None, None])

    def statistics(self, truncation: float) -> tuple[Tensor, Tensor]:
        """Return mean and variance (channels,) at a truncation, interpolated between the two nearest stored levels."""
        last = len(self.running_means) - 1
        if self.package_interpolation:
            fraction, low = math.modf(truncation / (1.0 / last))
            fraction = 1 - fraction if fraction else 0.0
        else:
            fraction, low = math.modf(truncation * last)
        index = int(low)
        if fraction == 0 or index >= last:
            return self.running_means[index], self.running_vars[index]
        mean = torch.lerp(self.running_means[index], self.running_means[index + 1], fraction)
        return mean, torch.lerp(self.running_vars[index], self.running_vars[index + 1], fraction)


class _Block(nn.Module):
    """A bottleneck residual block; where it narrows, the shortcut keeps the first half of the channels."""

    def __init__(self, channels_in: int, channels_out: int, doubles: bool, config: BigGANConfig) -> None:
        super().__init__()
        condition, middle = 2 * config.z_dim, channels_in // 4
        self.doubles = doubles
        self.channels_out = channels_out
        self.bn_0 = _Norm(channels_in, condition, config)
        self.conv_0 = nn.Conv2d(channels_in, middle, 1)
        self.bn_1 = _Norm(middle, condition, config)
        self.conv_1 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_2 = _Norm(middle, condition, config)
        self.conv_2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_3 = _Norm(middle, condition, config)
        self.conv_3 = nn.Conv2d(middle, channels_out, 1)

    def forward(self, hidden: Tensor, condition: Tensor, truncation: float) -> Tensor:
        inner = self.conv_0(F.relu(self.bn_0(hidden, condition, truncation)))
        inner = F.relu(self.bn_1(inner, condition, truncation))
        shortcut = hidden[:, : self.channels_out]
        if self.doubles:
            inner = F.interpolate(inner, scale_factor=2, mode="nearest")
            shortcut = F.interpolate(shortcut, scale_factor=2, mode="nearest")
        inner = self.conv_1(inner)
        inner = self.conv_2(F.relu(self.bn_2(inner, condition, truncation)))
        return self.conv_3(F.relu(self.bn_3(inner, condition, truncation))) + shortcut


class _Attention(nn.Module):
    """Self-attention over the positions of a feature map, keys and values pooled to a quarter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snconv1x1_theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.snconv1x1_o_conv = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, condition: Tensor, truncation: float) -> Tensor:
        theta = self.snconv1x1_theta(hidden).flatten(2)
        phi = F.max_pool2d(self.snconv1x1_phi(hidden), 2).flatten(2)
        values = F.max_pool2d(self.snconv1x1_g(hidden), 2).flatten(2)
        attention = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)
        seen = (values @ attention.transpose(1, 2)).unflatten(2, hidden.shape[2:])
        return hidden + self.gamma * self.snconv1x1_o_conv(seen)


def fold_spectral_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with every ``weight_orig``, ``weight_u``, ``weight_v`` replaced by the weight they stand for.

    The weight is ``weight_orig / (u^T W v)``. Where v was not stored it is the direction of ``W^T u``.
    """
    folded: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("weight_orig"):
            stem = name.removesuffix("_orig")
            if f"{stem}_u" not in state:
                raise ValueError(f"the weights lack {stem}_u, which belongs to {name}; fetch the file again")
            rows = value.float().flatten(1)
            left = state[f"{stem}_u"].float()
            right = state[f"{stem}_v"].float() if f"{stem}_v" in state else F.normalize(rows.T @ left, dim=0)
            if left.numel() != rows.shape[0] or right.numel() != rows.shape[1]:
                raise ValueError(f"the vectors beside {name} do not fit its shape; fetch the file again")
            folded[stem] = value / (left.flatten() @ rows @ right.flatten()).to(value.dtype)
        elif not name.endswith(("weight_u", "weight_v")):
            folded[name] = value
    return folded


def unfold_spectral_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return plain weights under the package's names: ``weight_orig`` with u and v such that u^T W v = 1 exactly.

    In evaluation mode the package then divides by one. u and v stay in 32 bits, whatever the weights are.
    """
    unfolded: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.endswith(".weight") or value.dim() < 2 or name == "embeddings.weight":
            unfolded[name] = value
            continue
        rows = value.float().flatten(1)
        right = F.normalize(rows[rows.norm(dim=1).argmax()], dim=0)
        left = F.normalize(rows @ right, dim=0)
        size = left @ rows @ right
        if not size > 0:
            raise ValueError(f"{name} is zero everywhere, which spectral normalisation cannot express")
        unfolded |= {f"{name}_orig": value, f"{name}_u": left / size, f"{name}_v": right}
    return unfolded


def load_biggan(
    folder: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> BigGAN:
    """Return the frozen generator of a folder that holds ``config.json`` and the weights.

    The weights are ``model.safetensors`` or ``pytorch_model.bin``.
    ValueError, in one sentence, where a file is absent, damaged or does not fit its configuration.
    """
    folder = Path(folder)
    config = BigGANConfig.from_json(_config_text(folder / CONFIG_NAME))
    state = fold_spectral_norm(_read_state(folder))
    with torch.device("meta"):
        network = BigGAN(config)
    _check_state(network, state, folder)
    network.load_state_dict({name: value.to(device, dtype) for name, value in state.items()}, assign=True)
    return network.requires_grad_(False).eval()


def save_biggan(network: BigGAN, folder: Path | str, dtype: torch.dtype = torch.float16) -> None:
    """Write ``config.json`` and ``model.safetensors``, in the package's key names, into a folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    state = {name: value.contiguous() for name, value in unfold_spectral_norm(plain).items()}
    save_file(state, folder / SAFE_NAME, metadata={"format": "pt"})
    (folder / CONFIG_NAME).write_text(network.config.to_json(), encoding="utf-8")


def _config_text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"the generator's folder lacks {path.name}: looked for {path}")
    if path.stat().st_size > CONFIG_LIMIT:
        raise ValueError(f"{path} is larger than {CONFIG_LIMIT} bytes, so it is no generator's configuration")
    return path.read_text(encoding="utf-8", errors="replace")


def _read_state(folder: Path) -> dict[str, Tensor]:
    safe, pickled = folder / SAFE_NAME, folder / PICKLE_NAME
    try:
        if safe.is_file():
            from safetensors.torch import load_file

            return load_file(safe)
        if pickled.is_file():
            state = torch.load(pickled, map_location="cpu", weights_only=True)
            if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
                return dict(state)
            raise ValueError("it holds no table of tensors")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the generator's weights in {folder} are not readable ({reason}); fetch them again") from None
    raise ValueError(f"the generator's weights are missing: put {SAFE_NAME} or {PICKLE_NAME} into {folder}")


def _check_state(network: BigGAN, state: dict[str, Tensor], folder: Path) -> None:
    wanted = network.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [name for name, value in wanted.items() if name in state and state[name].shape != value.shape]
    for words, names in (("lack", missing), ("hold the unexpected", extra), ("have another shape for", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            listed = ", ".join(names[:3])
            raise ValueError(
                f"the generator's weights in {folder} {words} {listed}{more}: they do not fit {CONFIG_NAME}"
            )
