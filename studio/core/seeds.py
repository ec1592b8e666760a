"""Randomness comes from a passed generator, and every generator comes from a seed."""

__all__ = ["generator_from"]

import hashlib

import torch


def generator_from(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for `seed` and a path of names, independent of generators on other paths.

    Draws are made on the CPU and moved, so that a run is the same on every device.
    """
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
