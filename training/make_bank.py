"""Make the bank of scouts that ships beside the embedded weights; run this after the weights have changed."""

import argparse
from pathlib import Path

import torch

from studio.core.seeds import generator_from
from studio.files.weights import embedded
from studio.problems.clip_image import joined, make_bank, save_bank
from studio.problems.pairs import load_pair

__all__ = ["main"]


def main() -> None:
    """Read the command line, decode and embed every latent, and write the bank whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=embedded("decoder").parent / "bank.safetensors")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pair = load_pair("embedded", "cpu")
    parts, done = [], 0
    for part in make_bank(pair.decoder, pair.clip, options.samples, generator_from(0, "bank")):
        parts.append(part)
        done += len(part)
        print(f"{done} of {options.samples}", flush=True)
    save_bank(joined(parts), options.out, pair.digest)


if __name__ == "__main__":
    main()
