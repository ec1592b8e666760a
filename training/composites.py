"""Captioned composites: emoji and pixel tiles placed on coloured and patterned backgrounds, made a batch at a time."""

from __future__ import annotations

import io
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

__all__ = [
    "COLOURS",
    "Factors",
    "Sprites",
    "caption",
    "compose",
    "concepts",
    "decoder_concepts",
    "held_out",
    "load_sprites",
    "with_article",
]

SIZE = 64
HERE = Path(__file__).parent
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.15),
    "orange": (1.0, 0.58, 0.1),
    "yellow": (1.0, 0.9, 0.2),
    "green": (0.15, 0.65, 0.25),
    "blue": (0.15, 0.35, 0.9),
    "purple": (0.55, 0.2, 0.7),
    "pink": (1.0, 0.6, 0.78),
    "brown": (0.45, 0.28, 0.15),
    "black": (0.04, 0.04, 0.04),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.5, 0.5, 0.5),
}
PATTERNS = ("plain", "striped", "striped", "striped", "checked", "dotted", "gradient", "gradient", "gradient")
THINGS = {"Animals and nature", "Food and drink", "Objects", "Travel and places", "Activities and events"}
PLURAL_SAME = {"corn", "bread", "sushi", "popcorn", "bacon", "cheese", "honey", "coffee", "beer"}
SINGULAR_S = {"bus", "cactus", "octopus", "dress"}


@dataclass(frozen=True)
class Sprites:
    """Decoded pictures with straight alpha (n, 4, 64, 64) uint8, each with a name index, a style and other words."""

    pictures: Tensor
    name_of: Tensor
    names: tuple[str, ...]
    styles: tuple[str, ...]
    keywords: tuple[tuple[str, ...], ...]
    codepoints: tuple[str, ...]
    groups: tuple[str, ...]

    def chosen(self) -> list[int]:
        """Return the vocabulary: our concepts, and the other things both artists drew whose words no concept uses."""
        count = len(concepts())
        taken = {word for name in self.names[:count] for word in name.split()}
        artists: dict[int, set[str]] = {}
        for name, style, group in zip(self.name_of.tolist(), self.styles, self.groups, strict=True):
            if group in THINGS:
                artists.setdefault(name, set()).add(style)
        clock = re.compile("oclock|-thirty")
        others = [
            name
            for name, styles in artists.items()
            if name >= count
            and len(styles) == 2
            and not taken & set(self.names[name].split())
            and len(self.names[name].split()) <= 2
            and not clock.search(self.names[name])
        ]
        return [*range(count), *sorted(others)]


@dataclass(frozen=True)
class Factors:
    """What a batch of composites shows; colours (n, 3) in [0, 1], the rest (n,): places and sizes in picture widths."""

    first: Tensor
    second: Tensor
    pattern: Tensor
    period: Tensor
    x: Tensor
    y: Tensor
    size: Tensor


def concepts() -> list[dict]:
    """Return the concepts drawn most: code points in both emoji sets, our short name, whether decoded."""
    return json.loads((HERE / "concepts.json").read_text(encoding="utf-8"))


def decoder_concepts() -> list[dict]:
    """Return the concepts that are the decoder's classes."""
    return [concept for concept in concepts() if concept["decoder"]]


def load_sprites(data: Path, tiles: bool = True) -> Sprites:
    """Return every emoji (single code points) and, on request, the tiles of monsters and items, decoded once."""
    short = {concept["codepoints"]: concept["name"] for concept in concepts()}
    names: dict[str, int] = {name: index for index, name in enumerate(short.values())}
    pictures, name_of, styles, keywords, codepoints, groups = [], [], [], [], [], []

    def add(blob: bytes, name: str, style: str, words: tuple[str, ...], code: str, group: str) -> None:
        image = Image.open(io.BytesIO(blob)).convert("RGBA")
        if image.size != (SIZE, SIZE):
            image = image.resize((SIZE, SIZE), Image.Resampling.NEAREST)
        pictures.append(np.asarray(image))
        name_of.append(names.setdefault(name, len(names)))
        styles.append(style)
        keywords.append(words)
        codepoints.append(code)
        groups.append(group)

    for style, file in (("Noto", "noto_64.npz"), ("EmojiTwo", "emojitwo_64.npz")):
        pack = _open(data / "emoji" / file)
        for index in np.flatnonzero(pack["base"]):
            code = str(pack["codepoints"][index])
            name = short.get(code) or _clean(str(pack["name"][index]))
            words = tuple(w for w in str(pack["keywords"][index]).split("|") if 2 < len(w) < 20)
            if code not in short and name in short.values():
                name = f"{name} picture"
            group = str(pack["group"][index])
            if group != "Flags" and name:
                add(_blob(pack, index), name, style, words, code, group)
    if tiles:
        pack = _open(data / "pixel_tiles" / "crawl_tiles_32.npz")
        for index in np.flatnonzero(np.isin(pack["category"], ["monster", "item"])):
            name = re.sub(r"\s*\d+$", "", _clean(str(pack["name"][index]))).strip()
            if len(name) > 2 and name not in names:
                add(_blob(pack, index), f"pixel {name}", "Crawl", (), "", "Tiles")
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Sprites(
        stacked, torch.tensor(name_of), tuple(names), tuple(styles), tuple(keywords), tuple(codepoints), tuple(groups)
    )


def held_out(names: int, seed: int, share: float = 0.1) -> Tensor:
    """Return a mask (names, colours): the combinations of name and background colour that training must not show."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(names, len(COLOURS), generator=generator) < share


def compose(pictures: Tensor, factors: Factors) -> Tensor:
    """Return composites (n, 3, 64, 64) in [-1, 1] of straight-alpha pictures (n, 4, 64, 64) uint8."""
    rgba = pictures.float() / 255
    alpha = rgba[:, 3:]
    layers = torch.cat((rgba[:, :3] * alpha, alpha), dim=1)
    scale = 1 / factors.size
    zero = torch.zeros_like(scale)
    theta = torch.stack((scale, zero, -2 * factors.x * scale, zero, scale, -2 * factors.y * scale), 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(scale), 4, SIZE, SIZE], align_corners=False)
    placed = F.grid_sample(layers, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    mask = _pattern(factors.pattern, factors.period)
    ground = torch.lerp(factors.first[:, :, None, None], factors.second[:, :, None, None], mask)
    return (placed[:, :3] + ground * (1 - placed[:, 3:])).clamp(0, 1) * 2 - 1


def caption(
    rng: random.Random,
    name: str,
    words: tuple[str, ...],
    first: str,
    second: str,
    pattern: int,
    x: float,
    y: float,
    size: float,
) -> str:
    """Return one of the many ways to say what a composite shows."""
    if words and rng.random() < 0.12:
        name = rng.choice(words)
    thing = with_article(name)
    if rng.random() < 0.12:
        thing = rng.choice(
            [f"a small {name}", f"a little {name}"] if size < 0.55 else [f"a large {name}", f"a big {name}"]
        )
    corner = f"{'top' if y < 0 else 'bottom'} {'left' if x < 0 else 'right'}"
    if abs(x) > 0.1 and abs(y) > 0.1 and rng.random() < 0.25:
        thing = f"{thing} in the {corner}{rng.choice(['', ' corner'])}"
    kind = PATTERNS[pattern]
    a = with_article(first)
    if pattern and rng.random() < 0.7:
        where = rng.choice(
            [
                f"{first} and {second} {kind} background",
                f"{first} and {second}",
                f"{kind} {first} and {second} background",
            ]
        )
        return rng.choice([f"{thing} on {where}", f"{thing} on {with_article(where)}"])
    return rng.choice(
        [
            f"{thing} on {a} background",
            f"{thing} on {a} background",
            f"{thing} on {a} background",
            f"{thing} on {first}",
            f"a picture of {thing}, {first} background",
            f"{name}, {first} background",
            f"{first} background, {name}",
            f"a drawing of {thing} on {first}",
            thing,
            name,
            f"a picture of {thing}",
            f"a photo of {thing} on {a} background",
        ]
    )


def with_article(name: str) -> str:
    """Return the name with "a" or "an" where English wants one."""
    last = name.split()[-1] if name else name
    if last in PLURAL_SAME or (last.endswith("s") and last not in SINGULAR_S):
        return name
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _pattern(kind: Tensor, period: Tensor) -> Tensor:
    """Return how much of the second colour each pixel takes, (n, 1, 64, 64); kinds are the positions in PATTERNS."""
    line = (torch.arange(SIZE) + 0.5) / SIZE
    rows, columns = line[None, :, None], line[None, None, :]
    step = period[:, None, None]

    def wave(along: Tensor) -> Tensor:
        return torch.sigmoid(60 * step * torch.sin(2 * torch.pi * along / step))

    whole = torch.ones(1, SIZE, SIZE)
    across, down = wave(rows * whole), wave(columns * whole)
    slanted = wave((rows + columns) * 0.7071)
    radius = ((rows % step - step / 2) ** 2 + (columns % step - step / 2) ** 2).sqrt()
    dots = torch.sigmoid(100 * (0.3 * step - radius))
    blend = ((rows - 0.5) ** 2 + (columns - 0.5) ** 2).sqrt() * 1.4
    n = len(kind)
    table = [
        whole * 0,
        across,
        down,
        slanted,
        across * (1 - down) + down * (1 - across),
        dots,
        rows * whole,
        columns * whole,
        blend,
    ]
    mask = torch.zeros(n, SIZE, SIZE)
    for index, pattern in enumerate(table[1:], start=1):
        mask = torch.where((kind == index)[:, None, None], pattern.expand(n, SIZE, SIZE), mask)
    return mask[:, None]


def _clean(name: str) -> str:
    name = re.sub(r"[“”’]", "", name.split(":")[-1].replace("_", " ")).strip()
    name = re.sub(r"^(face with|face|cat with) ", "", name)
    return re.sub(r"\s*\(.*\)", "", name).strip().lower()


def _open(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise SystemExit(f"{path} is missing: --data must name the folder that holds emoji/ and pixel_tiles/")
    with np.load(path, allow_pickle=False) as pack:
        return {name: pack[name] for name in pack.files}


def _blob(pack: dict[str, np.ndarray], index: int) -> bytes:
    low, high = pack["offsets"][index], pack["offsets"][index + 1]
    return pack["blob"][low:high].tobytes()
