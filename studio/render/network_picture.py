"""A growing network as pixels, always of one size: for thumbnails, pictures to keep and films."""

__all__ = ["network_picture"]

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, ImageDraw

from studio.render.network_drawing import LINKS, SHADES, WEAKEST
from studio.render.network_layout import BUCKETS, PALE, Layout, bucket, laid_out, limit_of, pitch_of, tidy
from studio.scenes import Layer, Link, Network

WIDTH, HEIGHT, MARGIN = 640, 400, 40.0
PAPER, INK = (252, 252, 250), (30, 41, 59)
BAND = 0.05
LOOSE = 190.0
CLOSER = (34.0, 26.0, 20.0, 15.0, 11.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0)
# Drawn this much larger and shrunk: Pillow draws without smoothing.
LARGER = 3

Places = list[np.ndarray]


def network_picture(scene: Network) -> UInt8[np.ndarray, "400 640 3"]:
    """Return the layers as columns of dots, coloured by splitting index, those of the last round with a ring."""
    scene = tidy(scene)
    layout = _fitted(scene)
    scale = np.array([min(1.0, WIDTH / layout.width), 1.0])
    offset = np.array([(WIDTH - layout.width * scale[0]) / 2, 0.0])
    places = [LARGER * (block.places() * scale + offset) for block in layout.blocks]
    page = Image.new("RGB", (LARGER * WIDTH, LARGER * HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    for link in scene.links:
        if max(link.source, link.target) < len(places):
            _draw_link(draw, link, places, LARGER * layout.pitch / 2)
    limit = limit_of(scene)
    for layer, at in zip(scene.layers, places, strict=True):
        _draw_layer(draw, scene, layer, at, (LARGER * layout.size / 2, limit))
    return np.asarray(page.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def _fitted(scene: Network) -> Layout:
    """Return the layout with the largest distances that fit the width; what is left of it widens the gaps."""
    usual, gaps = pitch_of(scene), max(1, len(scene.layers) - 1)
    layout = laid_out(scene, HEIGHT, MARGIN, 6.0, CLOSER[-1])
    for pitch in (pitch for pitch in CLOSER if pitch <= usual):
        close = laid_out(scene, HEIGHT, MARGIN, max(6.0, 1.5 * pitch), pitch)
        if close.width <= WIDTH:
            gap = close.gap + min(LOOSE, (WIDTH - close.width) / gaps)
            return laid_out(scene, HEIGHT, MARGIN, gap, pitch)
    return layout


def _draw_link(draw: ImageDraw.ImageDraw, link: Link, places: Places, half: float) -> None:
    source, target = places[link.source], places[link.target]
    strengths = np.abs(link.strengths)
    if link.strengths.size > LINKS:
        _draw_band(draw, source, target, half)
        return
    top = float(strengths.max(initial=0.0))
    to, come = np.nonzero(strengths > WEAKEST * top) if top else (np.zeros(0, int), np.zeros(0, int))
    faint = min(1.0, float(np.sqrt(40 / max(1, len(to)))))
    order = np.argsort(strengths[to, come], kind="stable")
    for end, start in zip(to[order].tolist(), come[order].tolist(), strict=True):
        shade = min(int(strengths[end, start] / top * len(SHADES)), len(SHADES) - 1)
        draw.line((*source[start], *target[end]), fill=_mixed(SHADES[shade] * faint), width=LARGER)


def _draw_band(draw: ImageDraw.ImageDraw, source: np.ndarray, target: np.ndarray, half: float) -> None:
    left, right = source[:, 0].max() + half, target[:, 0].min() - half
    corners = [
        (left, source[:, 1].min() - half), (right, target[:, 1].min() - half),
        (right, target[:, 1].max() + half), (left, source[:, 1].max() + half),
    ]  # fmt: skip
    draw.polygon(corners, fill=_mixed(BAND))


def _draw_layer(
    draw: ImageDraw.ImageDraw, scene: Network, layer: Layer, at: np.ndarray, radius_limit: tuple[float, float]
) -> None:
    radius, limit = radius_limit
    shades = bucket(layer.low, limit)
    fresh = (layer.born == scene.round) & (scene.round > 0)
    for place in np.argsort(fresh, kind="stable").tolist():
        x, y = at[place]
        if fresh[place]:
            _dot(draw, x, y, 1.55 * radius, INK)
            _dot(draw, x, y, 1.25 * radius, PAPER)
        colour = ImageColor.getrgb(BUCKETS[shades[place]] if scene.scored else PALE)
        _dot(draw, x, y, radius + 1.5, _mixed(0.5))
        _dot(draw, x, y, radius, colour)
        if layer.shares[place] < 0:
            _dot(draw, x, y, 0.58 * radius, PAPER)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, ...]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _mixed(share: float) -> tuple[int, ...]:
    """Return ink thinned to a share of it."""
    return tuple(round(paper + (ink - paper) * share) for paper, ink in zip(PAPER, INK, strict=True))
