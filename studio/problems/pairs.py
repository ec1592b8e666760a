"""A generator and a CLIP that belong together, loaded once and kept: embedded, or the published weights."""

__all__ = ["Pair", "load_card", "load_judge", "load_pair", "needed_bytes"]

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from studio.files.weights import Card, Found, Missing, assets_folder, card, digest_of, embedded, find, user_cache
from studio.nets.biggan import BigGAN, load_biggan
from studio.nets.clip import Clip, load_clip
from studio.problems.clip_image import Bank, load_bank, save_bank

CLIP_CARDS = ("clip-vit-b-32", "clip-vit-b-32-archive")
EMBEDDED_BANK = 1024
REAL_BANK_CPU, REAL_BANK_CUDA = 24, 4096


@dataclass(frozen=True, eq=False)
class Pair:
    """Both networks, the digest of their files, and how many pictures a bank made on this machine holds."""

    decoder: BigGAN
    clip: Clip
    digest: str
    bank_size: int

    def bank(self) -> Bank | None:
        """Return the bank that ships with these weights or was kept by an earlier run, else None."""
        kept = (assets_folder() / "embedded" / "bank.safetensors", self._kept())
        return next((bank for bank in (load_bank(path, self.digest) for path in kept) if bank is not None), None)

    def keep(self, bank: Bank) -> None:
        """Keep a bank for later runs; a cache that cannot be written is no reason to fail."""
        try:
            save_bank(bank, self._kept(), self.digest)
        except OSError:
            return

    def _kept(self) -> Path:
        return user_cache() / f"bank-{self.digest[:16]}.safetensors"


@lru_cache(maxsize=2)
def load_pair(weights: str, device: str) -> Pair:
    """Return the frozen networks called `weights` on a device; the last two are kept in memory.

    Raises `ValueError`, in one sentence, where files are missing: which, and where to put them.
    """
    if weights == "embedded":
        folders = embedded("decoder"), embedded("clip")
        paths = [p for f in folders for p in sorted(f.iterdir()) if p.suffix in (".safetensors", ".json")]
        return Pair(load_biggan(folders[0], device), load_clip(folders[1], device), digest_of(paths), EMBEDDED_BANK)
    generator, clip = find(card(weights)), _clip_files()
    for found in (generator, clip):
        if isinstance(found, Missing):
            raise ValueError(found.sentence)
    assert isinstance(generator, Found) and isinstance(clip, Found)
    size = REAL_BANK_CPU if torch.device(device).type == "cpu" else REAL_BANK_CUDA
    decoder = _generator(card(weights), generator, device)
    return Pair(decoder, _clip(clip, device), digest_of((*generator.paths, *clip.paths)), size)


@lru_cache(maxsize=1)
def load_judge(device: str) -> Clip:
    """Return the embedded judge: a CLIP of another shape and seed that no picture is optimised for."""
    return load_clip(embedded("judge"), device)


def load_card(name: str, device: str = "cpu") -> BigGAN | Clip:
    """Return the network of one card, strictly loaded; a `ValueError` says what is missing or does not fit."""
    found = find(card(name))
    if isinstance(found, Missing):
        raise ValueError(found.sentence)
    return _clip(found, device) if name in CLIP_CARDS else _generator(card(name), found, device)


def _generator(kind: Card, found: Found, device: str) -> BigGAN:
    with _named(kind, found) as folder:
        return load_biggan(folder, device)


def _clip(found: Found, device: str) -> Clip:
    first = found.paths[0]
    return load_clip(first if first.suffix == ".pt" else first.parent, device)


def needed_bytes(weights: str, images: int, copies: int) -> tuple[int, int]:
    """Return the bytes a run needs beside its views (networks and generator), and the bytes of each view of each image.

    Upper bounds measured from the tensors autograd keeps; the tests hold them against the networks.
    """
    fixed, image, view = NEEDS[weights]
    return fixed + images * image, images * view


MIB = 2**20
# networks, generator's graph per image, CLIP's graph per view; megabytes
NEEDS = {
    "embedded": (200 * MIB, 40 * MIB, 12 * MIB),
    "biggan-deep-128": (1500 * MIB, 500 * MIB, 80 * MIB),
    "biggan-deep-256": (1500 * MIB, 1500 * MIB, 80 * MIB),
    "biggan-deep-512": (1500 * MIB, 4500 * MIB, 80 * MIB),
}


@contextmanager
def _named(kind: Card, found: Found) -> Generator[Path, None, None]:
    """Give a folder in which the files carry the card's names (a cache may call them by their address)."""
    with TemporaryDirectory() as folder:
        for file, path in zip(kind.files, found.paths, strict=True):
            try:
                (Path(folder) / file.name).symlink_to(path.resolve())
            except OSError:
                shutil.copyfile(path, Path(folder) / file.name)
        yield Path(folder)


def _clip_files() -> Found | Missing:
    answers = [find(card(name)) for name in CLIP_CARDS]
    return next((a for a in answers if isinstance(a, Found)), answers[0])
