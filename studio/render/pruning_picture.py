"""A network that is pruned as pixels, always of one size: for thumbnails, pictures to keep and films."""

__all__ = ["pruning_picture"]

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from studio.render.pruning_imitation import fallen
from studio.render.pruning_layers import cells, level_of
from studio.render.pruning_plane import CROWD, SIZES, WIDE, moments_of, seen
from studio.scenes import Channels, Imitation, Pruning

WIDTH, HEIGHT, EDGE = 640, 400, 18
PAPER, INK, UNDER, PALE = (252, 252, 250), (30, 41, 59), (243, 244, 244), (190, 195, 202)
BLUE, ORANGE, QUIET = (0, 114, 178), (213, 94, 0), (87, 100, 122)
# How much of its colour a level of weight has.
SHADES = (0.12, 0.28, 0.46, 0.64, 0.82, 1.0)
MOST, STRIP = 240, 128
# Drawn this much larger and shrunk: Pillow draws without smoothing.
LARGER = 3

Draw = ImageDraw.ImageDraw
Box = tuple[float, float, float, float]


def pruning_picture(scene: Pruning) -> UInt8[np.ndarray, "400 640 3"]:
    """Return the layers as fields of cells, and below them the newest layer's contributions and the error left."""
    page = Image.new("RGB", (LARGER * WIDTH, LARGER * HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    path = scene.imitation
    foot = HEIGHT - EDGE if path is None else EDGE + STRIP
    _draw_layers(draw, scene.layers, (EDGE, EDGE, WIDTH - EDGE, foot))
    if path is not None:
        _draw_plane(draw, path, (EDGE, foot + EDGE, 0.62 * WIDTH, HEIGHT - EDGE))
        _draw_fall(draw, path, (0.66 * WIDTH, foot + EDGE, WIDTH - EDGE, HEIGHT - EDGE))
    return np.asarray(page.reduce(LARGER))


def _draw_layers(draw: Draw, layers: tuple[Channels, ...], box: Box) -> None:
    """Draw the layers as tiles, row by row, in the order of the network."""
    left, top, right, bottom = box
    fitting = math.ceil(math.sqrt(len(layers) * (right - left) / (bottom - top) / 1.6))
    columns = max(1, min(fitting, len(layers)))
    rows = max(1, math.ceil(len(layers) / columns))
    wide, tall = (right - left) / columns, (bottom - top) / rows
    gap = min(6.0, wide / 10)
    for index, layer in enumerate(layers):
        x, y = left + index % columns * wide, top + index // columns * tall
        _draw_layer(draw, layer, (x, y, x + wide - gap, y + tall - gap))


def _draw_layer(draw: Draw, layer: Channels, box: Box) -> None:
    edge = ORANGE if layer.state == "now" else UNDER
    draw.rounded_rectangle(_larger(box), radius=3 * LARGER, fill=UNDER, outline=edge, width=LARGER)
    levels = level_of(cells(layer.weights, MOST))
    if not len(levels):
        return
    colour = np.array({"now": ORANGE, "done": BLUE}.get(layer.state, QUIET))
    left, top, right, bottom = (at + step for at, step in zip(box, (4, 4, -4, -4), strict=True))
    columns = max(1, math.ceil(math.sqrt(len(levels) * max(1.0, right - left) / max(1.0, bottom - top))))
    size = min((right - left) / columns, (bottom - top) / math.ceil(len(levels) / columns))
    for index, level in enumerate(levels.tolist()):
        x, y = left + index % columns * size, top + index // columns * size
        share = SHADES[level]
        fill = np.array(PAPER) * (1 - share) + (colour if level else np.array(INK)) * share
        end = max(0.3, 0.84 * size)
        draw.rectangle(_larger((x, y, x + end, y + end)), fill=tuple(fill.round().astype(int).tolist()))


def _draw_plane(draw: Draw, path: Imitation, box: Box) -> None:
    """Draw the contributions in their hull, the kept ones in colour, the target and the path to it."""
    moments = moments_of(path)
    view = seen(path, moments)
    scale = min((box[2] - box[0]) / WIDE, (box[3] - box[1]) / view.height)
    offset = np.array([(box[0] + box[2]) / 2 - scale * WIDE / 2, (box[1] + box[3]) / 2 - scale * view.height / 2])
    dots, target, trail, hull = (
        LARGER * (part * scale + offset) for part in (view.dots, view.target[None], view.trail, view.hull)
    )
    if len(hull) > 2:
        draw.polygon(_places(hull), fill=UNDER, outline=PALE)
    size = 0.65 if len(dots) > CROWD else 1.0
    for at in dots:
        _dot(draw, at, 1.6 * size, PALE)
    weights = path.weights[moments[-1]] if len(moments) else np.zeros(len(dots))
    most = max(float(weights.max(initial=0.0)), 1e-300)
    for at, weight in zip(dots, weights.tolist(), strict=True):
        if weight > 0:
            _dot(draw, at, size * (4.6 - sum(weight < bound * most for bound in SIZES)), BLUE)
    if len(trail) > 1:
        draw.line(_places(trail), fill=ORANGE, width=int(1.5 * LARGER))
    for end in trail[-1:]:
        _dot(draw, end, 4.6, ORANGE)
    (x, y), arm = target[0].tolist(), 7 * LARGER
    draw.line([(x - arm, y), (x + arm, y)], fill=INK, width=int(1.5 * LARGER))
    draw.line([(x, y - arm), (x, y + arm)], fill=INK, width=int(1.5 * LARGER))


def _draw_fall(draw: Draw, path: Imitation, box: Box) -> None:
    """Draw the error left, on a logarithmic scale, from the first moment to the last."""
    left, top, right, bottom = box
    draw.line(_larger((left, top, left, bottom)), fill=PALE, width=LARGER)
    draw.line(_larger((left, bottom, right, bottom)), fill=PALE, width=LARGER)
    if not len(path.errors):
        return
    depths = fallen(path.errors)
    down = (depths.max() - depths) / max(float(np.ptp(depths)), 1e-9)
    across = np.linspace(0, 1, len(depths))
    places = LARGER * np.stack([left + 6 + across * (right - left - 12), top + 6 + down * (bottom - top - 16)], axis=1)
    if len(places) > 1:
        draw.line(_places(places), fill=INK, width=2 * LARGER, joint="curve")
    _dot(draw, places[-1], 3.6, ORANGE)


def _dot(draw: Draw, at: np.ndarray, radius: float, fill: tuple[int, int, int]) -> None:
    (x, y), reach = at.tolist(), LARGER * radius
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)


def _larger(box: Box) -> Box:
    left, top, right, bottom = (LARGER * at for at in box)
    return left, top, max(left, right), max(top, bottom)


def _places(points: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]
