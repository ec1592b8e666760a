"""Pictures CLIP likes: a frozen generator, a frozen CLIP, a direction to follow and a bank of pictures seen before."""

__all__ = ["Bank", "ClipImage", "load_bank", "make_bank", "plain_features", "save_bank"]

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from studio.core.seeds import generator_from
from studio.nets.biggan import BigGAN
from studio.nets.clip import Clip
from studio.problems.augmentation import HELD_OUT, NEUTRAL, TRAIN, Draw, Policy, draw_views, views

CLAMP = 2.0
CHUNK = 64
FIRST_CHUNK = 16
HELD_OUT_VIEWS = 32
BANK_LIMIT = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Bank:
    """m random latents, their classes and the unit CLIP features of their pictures, in half precision."""

    z: Float[Tensor, "m dz"]
    classes: Int[Tensor, " m"]
    features: Float[Tensor, "m d"]

    def __len__(self) -> int:
        return len(self.z)


@dataclass(eq=False)
class ClipImage:
    """The problem of FuseDream: `target` holds one direction a picture, `batch` the views that fit in memory.

    `bank` may be None or partial: `candidates` then makes one and leaves it in `bank`.
    """

    decoder: BigGAN
    clip: Clip
    target: Float[Tensor, "n d"]
    bank: Bank | None = None
    policy: Policy = TRAIN
    batch: int = 64
    chunk: int = CHUNK
    bank_seed: int = 0
    _held_out: Draw | None = field(default=None, init=False, repr=False)

    @property
    def side(self) -> int:
        """Return the side of the generator's pictures."""
        return self.decoder.config.image_size

    def candidates(
        self, samples: int, fresh: bool, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield latents, class embeddings and features: the bank at once, or pictures made now, batch by batch."""
        if self.bank is not None and not fresh:
            yield self._opened(self.bank)
            return
        source = generator if fresh else generator_from(self.bank_seed, "bank")
        parts = []
        for part in make_bank(self.decoder, self.clip, samples, source, self.chunk):
            parts.append(part)
            yield self._opened(part)
        if not fresh:
            self.bank = joined(parts)

    def random_latents(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return `count` clamped normal latents and the embeddings of random classes."""
        z, classes = random_points(self.decoder, count, generator)
        return z.to(self.target), self._embedded(classes)

    def decode(self, z: Tensor, y: Tensor) -> Float[Tensor, "n 3 h w"]:
        """Return pictures in [-1, 1], differentiable in the latents."""
        like = self.decoder.embeddings.weight
        return self.decoder(z.to(like), y.to(like))

    def draws(self, copies: int, generator: torch.Generator) -> tuple[Draw, ...]:
        """Return `copies` random views of the policy in batches that fit in memory; 0 gives the plain view."""
        policy = self.policy if copies else NEUTRAL
        return draw_views(policy, max(copies, 1), self.side, self.clip.size, generator).split(self.batch)

    def score(self, images: Float[Tensor, "n 3 h w"], draw: Draw) -> Float[Tensor, "n r"]:
        """Return the cosine of each view with its target."""
        seen = views(images, draw, self.clip.size)
        features = self.clip.encode_images((seen.flatten(0, 1) + 1) / 2).unflatten(0, seen.shape[:2])
        return torch.einsum("nrd,nd->nr", features, self.target.to(features))

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return the unit CLIP features of the plain pictures, differentiable in the pictures."""
        return plain_features(self.clip, images)

    def held_out(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the mean score over fixed views of a policy that no run optimises for."""
        if self._held_out is None:
            random = generator_from(0, "held out")
            self._held_out = draw_views(HELD_OUT, HELD_OUT_VIEWS, self.side, self.clip.size, random)
        return torch.cat([self.score(images, draw) for draw in self._held_out.split(self.batch)], dim=1).mean(dim=1)

    def _embedded(self, classes: Tensor) -> Tensor:
        return self.decoder.embeddings.weight.T[classes.to(self.target.device)].to(self.target)

    def _opened(self, bank: Bank) -> tuple[Tensor, Tensor, Tensor]:
        device = self.target.device
        return bank.z.to(self.target), self._embedded(bank.classes.long()), bank.features.to(device, torch.float32)


def random_points(decoder: BigGAN, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return latents z ~ N(0, 1) clamped to 2 standard deviations, and classes drawn evenly."""
    z = torch.randn(count, decoder.config.z_dim, generator=generator).clamp(-CLAMP, CLAMP)
    return z, torch.randint(decoder.config.num_classes, (count,), generator=generator)


def make_bank(
    decoder: BigGAN, clip: Clip, samples: int, generator: torch.Generator, chunk: int = CHUNK
) -> Iterator[Bank]:
    """Yield the parts of a bank of `samples` latents (`joined` puts them together); the first part is small."""
    done = 0
    while done < samples:
        count = min(chunk if done else min(chunk, FIRST_CHUNK), samples - done)
        z, classes = random_points(decoder, count, generator)
        z = z.half()
        features = _features(decoder, clip, z, classes)
        yield Bank(z, classes.to(torch.int32), features.half().cpu())
        done += count


def joined(parts: list[Bank]) -> Bank:
    """Return one bank of all parts."""
    return Bank(*(torch.cat([getattr(part, name) for part in parts]) for name in ("z", "classes", "features")))


def save_bank(bank: Bank, path: Path, digest: str) -> None:
    """Write a bank whole or not at all; `digest` names the weights it was made with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        tensors = {"z": bank.z, "classes": bank.classes, "features": bank.features}
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, {"digest": digest})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def load_bank(path: Path, digest: str) -> Bank | None:
    """Return the bank of a file, or None where there is none, it is damaged, or it belongs to other weights."""
    if not path.is_file() or path.stat().st_size > BANK_LIMIT:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("digest") != digest:
                return None
            bank = Bank(*(file.get_tensor(name) for name in ("z", "classes", "features")))
    except (SafetensorError, OSError):
        return None
    return bank if len(bank) and len(bank.z) == len(bank.classes) == len(bank.features) else None


@torch.no_grad()
def _features(decoder: BigGAN, clip: Clip, z: Tensor, classes: Tensor) -> Float[Tensor, "m d"]:
    """Return the plain, un-augmented CLIP features of pictures: the official code ranks by these."""
    weight = decoder.embeddings.weight
    images = decoder(z.to(weight), weight.T[classes.to(weight.device)])
    return plain_features(clip, images)


def plain_features(clip: Clip, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """Return the unit features a CLIP gives to whole, un-augmented pictures in [-1, 1]."""
    plain = draw_views(NEUTRAL, 1, images.shape[-1], clip.size, torch.Generator())
    return clip.encode_images((views(images, plain, clip.size)[:, 0] + 1) / 2)
