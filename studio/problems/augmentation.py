"""The augmentations of AugCLIP: one resampling pass turns pictures into many jittered views of CLIP's own size."""

__all__ = ["HELD_OUT", "NEUTRAL", "TRAIN", "Draw", "Policy", "draw_views", "views"]

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Policy:
    """How far each augmentation reaches; all zero is the plain picture.

    `brightness`, `saturation`, `contrast`: half-ranges about 0, 1, 1. `translation`: share of the side.
    `resize`: half-range about 1. `cutout`: side of the grey square as a share of the picture's.
    `perspective`: reach of each corner in half-sides. `blur`: largest standard deviation in sixty-fourths of
    the side. `noise`: largest standard deviation on the range [-1, 1].
    """

    brightness: float = 0.0
    saturation: float = 0.0
    contrast: float = 0.0
    translation: float = 0.0
    resize: float = 0.0
    cutout: float = 0.0
    perspective: float = 0.0
    blur: float = 0.0
    noise: float = 0.0


NEUTRAL = Policy()
# DiffAugment's constants and the extra resize of the official FuseDream code.
TRAIN = Policy(brightness=0.5, saturation=1.0, contrast=0.5, translation=0.125, resize=0.2, cutout=0.5)
# Nothing in common with TRAIN: what a score says here was not optimised for.
HELD_OUT = Policy(perspective=0.25, blur=1.0, noise=0.15)


@dataclass(frozen=True, eq=False)
class Draw:
    """The parameters of r views, drawn by `draw_views` and used by `views`; all coordinates in [-1, 1]."""

    brightness: Float[Tensor, " r"]
    saturation: Float[Tensor, " r"]
    contrast: Float[Tensor, " r"]
    shift: Float[Tensor, "r 2"]
    ratio: Float[Tensor, " r"]
    hole: Float[Tensor, "r 2"]
    half_hole: Float[Tensor, " r"]
    tilt: Float[Tensor, "r 3 3"]
    blur: Float[Tensor, " r"]
    noise: Float[Tensor, "r 3 s s"] | None = None

    def __len__(self) -> int:
        return len(self.ratio)

    def split(self, size: int) -> tuple["Draw", ...]:
        """Return the same views in batches of at most `size`."""
        return tuple(self._part(slice(at, at + size)) for at in range(0, len(self), size))

    def to(self, like: Tensor) -> "Draw":
        """Return the draw on the device and in the number type of a tensor."""
        return Draw(*(None if v is None else v.to(like.device, like.dtype) for v in self._values()))  # type: ignore[arg-type]

    def _part(self, rows: slice) -> "Draw":
        return Draw(*(None if v is None else v[rows] for v in self._values()))  # type: ignore[arg-type]

    def _values(self) -> list[Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]


def draw_views(policy: Policy, copies: int, side: int, size: int, generator: torch.Generator) -> Draw:
    """Return the parameters of `copies` views of pictures of `side` pixels seen at `size` pixels.

    Every copy has its own. Shifts and holes sit on whole pixels of the picture, as in DiffAugment.
    """

    def uniform(reach: float, *shape: int) -> Tensor:
        return (2 * torch.rand(copies, *shape, generator=generator) - 1) * reach

    reach = int(side * policy.translation + 0.5)
    hole_side = int(side * policy.cutout + 0.5)
    pixels = torch.randint(-reach, reach + 1, (copies, 2), generator=generator)
    corner = torch.randint(0, side + (1 - hole_side % 2), (copies, 2), generator=generator) - hole_side // 2
    return Draw(
        brightness=uniform(policy.brightness),
        saturation=1 + uniform(policy.saturation),
        contrast=1 + uniform(policy.contrast),
        shift=2.0 * pixels / side,
        ratio=1 + uniform(policy.resize),
        hole=(2.0 * corner + hole_side) / side - 1,
        half_hole=torch.full((copies,), hole_side / side),
        tilt=_homographies(uniform(policy.perspective, 4, 2)),
        blur=torch.rand(copies, generator=generator) * policy.blur * size / 64,
        noise=_noise(policy.noise, copies, size, generator),
    )


def views(images: Float[Tensor, "n 3 h w"], draw: Draw, size: int) -> Float[Tensor, "n r 3 s s"]:
    """Return r views of each picture in [-1, 1] at `size` pixels, differentiable in the pictures.

    Colour steps first, then translation and resize, then the hole, as in the official code. Colour is linear in
    the picture, so it is applied after the one resampling pass; outside the picture and in the hole is 0, mid-grey.
    """
    draw = draw.to(images)
    grid, inside = _sampling_grid(draw, size)
    n, r = len(images), len(draw)
    flat = grid.reshape(1, r * size, size, 2).expand(n, -1, -1, -1)
    seen = F.grid_sample(images, flat, mode="bilinear", padding_mode="border", align_corners=False)
    seen = seen.view(n, 3, r, size, size).transpose(1, 2)
    seen = _coloured(seen, images.mean(dim=(1, 2, 3)), draw) * inside[None, :, None]
    if bool((draw.blur > 0).any()):
        seen = _blurred(seen, draw.blur)
    return seen if draw.noise is None else seen + draw.noise


def _coloured(seen: Float[Tensor, "n r 3 s s"], mean: Float[Tensor, " n"], draw: Draw) -> Float[Tensor, "n r 3 s s"]:
    """Brightness x + b, saturation (x - g) s + g with grey g, contrast (x - M) c + M with the mean M, in one go."""
    bright, vivid, sharp = (v.view(1, -1, 1, 1, 1) for v in (draw.brightness, draw.saturation, draw.contrast))
    grey = seen.mean(dim=2, keepdim=True)
    return sharp * (vivid * (seen - grey) + grey) + (1 - sharp) * mean.view(-1, 1, 1, 1, 1) + bright


def _sampling_grid(draw: Draw, size: int) -> tuple[Float[Tensor, "r s s 2"], Float[Tensor, "r s s"]]:
    """Return where each output pixel looks in the picture, and 1 where it sees picture, 0 where grey."""
    at = (2 * torch.arange(size, device=draw.ratio.device, dtype=draw.ratio.dtype) + 1) / size - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    screen = torch.stack((x, y), dim=-1)[None]
    hole = ((screen - draw.hole[:, None, None]).abs() < draw.half_hole[:, None, None, None]).all(dim=-1)
    bent = _through(draw.tilt, screen)
    framed = bent / draw.ratio[:, None, None, None]
    source = framed - draw.shift[:, None, None]
    inside = _within(framed) & _within(source) & ~hole
    return source, inside.to(at.dtype)


def _within(places: Float[Tensor, "r s s 2"]) -> Bool[Tensor, "r s s"]:
    return (places.abs() <= 1).all(dim=-1)


def _through(tilt: Float[Tensor, "r 3 3"], places: Float[Tensor, "1 s s 2"]) -> Float[Tensor, "r s s 2"]:
    turned = torch.einsum("rij,zabj->rabi", tilt[:, :, :2], places) + tilt[:, None, None, :, 2]
    return turned[..., :2] / turned[..., 2:]


def _homographies(offsets: Float[Tensor, "r 4 2"]) -> Float[Tensor, "r 3 3"]:
    """Return the maps of the square's corners to the corners moved by `offsets` (eight linear equations each)."""
    if not bool(offsets.any()):
        return torch.eye(3).expand(len(offsets), 3, 3)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    x, y = corners.expand(len(offsets), 4, 2).unbind(dim=2)
    u, v = (corners + offsets).unbind(dim=2)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack((x, y, one, zero, zero, zero, -x * u, -y * u), dim=2)
    rows_v = torch.stack((zero, zero, zero, x, y, one, -x * v, -y * v), dim=2)
    solved = torch.linalg.solve(torch.cat((rows_u, rows_v), dim=1), torch.cat((u, v), dim=1))
    return torch.cat((solved, one[:, :1]), dim=1).view(-1, 3, 3)


def _noise(reach: float, copies: int, size: int, generator: torch.Generator) -> Float[Tensor, "r 3 s s"] | None:
    if reach == 0:
        return None
    strength = torch.rand(copies, 1, 1, 1, generator=generator) * reach
    return strength * torch.randn(copies, 3, size, size, generator=generator)


def _blurred(seen: Float[Tensor, "n r 3 s s"], sigma: Float[Tensor, " r"]) -> Float[Tensor, "n r 3 s s"]:
    """Smooth each view by its own Gaussian, rows then columns; the border is repeated."""
    n, r, _, size, _ = seen.shape
    reach = min(size - 1, max(1, math.ceil(3 * float(sigma.max()))))
    steps = torch.arange(-reach, reach + 1, device=seen.device, dtype=seen.dtype)
    kernel = torch.softmax(-0.5 * (steps / sigma.clamp_min(1e-3)[:, None]) ** 2, dim=1)
    flat = seen.transpose(0, 1).reshape(1, r * n * 3, size, size)
    kernel = kernel.repeat_interleave(n * 3, dim=0)[:, None]
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=r * n * 3)
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[:, :, :, None], groups=r * n * 3)
    return flat.view(r, n, 3, size, size).transpose(0, 1)
