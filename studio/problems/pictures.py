"""One's own pictures without labels: what a pretrained network says of them is what a smaller one has to say."""

__all__ = ["LEAST", "MOST", "PICTURES", "SIDE", "picture_problem"]

import copy
import os
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor, nn

from studio.core.seeds import generator_from
from studio.files.datasets import data_folder
from studio.nets.modes import evaluating
from studio.problems.own_network import OwnNetwork

PICTURES = "pictures"
SIDE = 224
LEAST, MOST = 4, 512
BATCH = 16
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
BYTES = 20 * 2**20
PIXELS = 50_000_000
# Of the values of ImageNet's pictures, with which torchvision's networks were trained.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture_problem(
    network: nn.Module, side: int = SIDE, count: int = 256, batch: int = BATCH, seed: int = 0,
    device: torch.device | str = "cpu",
) -> OwnNetwork:  # fmt: skip
    """Return the problem of saying what `network` says of the user's pictures: those of the folder `pictures`.

    The folder lies below the one STUDIO_DATA names. Its first `count` files by name are read, without those that are
    damaged, links, of over 20 MB or 50 megapixels; the middle of each is shown at `side` by `side` pixels. A target is
    the class `network` gives most to, so that `accuracy` is agreement with it. `seed` draws the half that tests. The
    network is copied where it is not on `device`. Raises `ValueError`, in one sentence, where there are too few.
    """
    if not LEAST <= count <= MOST:
        raise ValueError(f"count must be between {LEAST} and {MOST} pictures, got {count}")
    if not 1 <= batch <= BATCH:
        raise ValueError(f"batch must be between 1 and {BATCH} pictures, got {batch}")
    device = torch.device(device)
    here, inputs, targets = _named(network, _files(data_folder(PICTURES, PICTURES), count), side, device)
    test, train = torch.randperm(len(inputs), generator=generator_from(seed, "split")).tensor_split([len(inputs) // 2])
    train, test = train.to(device), test.to(device)
    return OwnNetwork(
        here, inputs[train], targets[train], inputs[test], targets[test], batch_size=batch, seed=seed,
        words="of the pictures named as before",
    )  # fmt: skip


def _files(folder: Path, count: int) -> tuple[tuple[Path, int, int], ...]:
    """Return the first files that may be pictures, by name, with their sizes and times; links are left out."""
    with os.scandir(folder) as entries:
        found = sorted(
            (entry for entry in entries if entry.name.lower().endswith(ENDINGS)), key=lambda entry: entry.name
        )
    own = [entry for entry in found if entry.is_file(follow_symlinks=False)][:count]
    return tuple((Path(entry.path), entry.stat().st_size, entry.stat().st_mtime_ns) for entry in own)


@lru_cache(maxsize=1)
def _named(
    network: nn.Module, files: tuple[tuple[Path, int, int], ...], side: int, device: torch.device
) -> tuple[nn.Module, Float[Tensor, "n 3 s s"], Int[Tensor, " n"]]:
    """Return the network and the pictures on the device, and the class it names each by."""
    found = [picture for path, size, _ in files if size <= BYTES and (picture := _picture(path, side)) is not None]
    if len(found) < LEAST:
        raise ValueError(
            f"data 'pictures' needs at least {LEAST} pictures that can be read, got {len(found)}: put .png, .jpg or "
            ".webp files into the folder pictures below the one that STUDIO_DATA names"
        )
    first = next(network.parameters(), torch.zeros(()))
    here = network if first.device == device else copy.deepcopy(network).to(device)
    inputs = ((torch.stack(found) - _channels(MEAN)) / _channels(DEVIATION)).to(device)
    with torch.no_grad(), evaluating(here):
        outputs = torch.cat([here(part) for part in inputs.split(BATCH)])
    if outputs.ndim != 2 or not bool(outputs.isfinite().all()):
        raise ValueError("the network gives a picture no row of finite numbers: take a classifier with sound weights")
    return here, inputs, outputs.argmax(dim=1)


def _picture(path: Path, side: int) -> Float[Tensor, "3 s s"] | None:
    """Return the middle of a picture with values in [0, 1]; None where it is too large or cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS:
                return None
            picture.draft("RGB", (2 * side, 2 * side))
            clear = picture.convert("RGBA") if "transparency" in picture.info else picture
            fitted = ImageOps.fit(clear.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
    except Exception:  # the decoders' own errors share no base class
        return None
    values = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return values.view(side, side, 3).permute(2, 0, 1).float() / 255


def _channels(values: tuple[float, ...]) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(values).view(3, 1, 1)
