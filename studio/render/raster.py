"""Scenes into pixels: contact sheets of images, and points over contours without a browser."""

__all__ = ["enlarge", "points_picture", "sheet", "still", "thumbnail"]

import math
from typing import assert_never

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from studio.render.molecules_picture import picture as molecules_picture
from studio.render.network_picture import network_picture
from studio.render.pruning_picture import pruning_picture
from studio.scenes import Curves, Images, Matrix, Members, Molecules, Network, Points, Pruning, Scene

PAPER = (250, 250, 248)
INK = (30, 41, 59)
LOW, HIGH = np.array([226.0, 236, 245]), np.array([36.0, 78, 120])
GREEN, ORANGE = (16, 133, 101), (224, 103, 20)


def still(scenes: tuple[Scene, ...]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Return the first picture among the scenes, None where there are only charts."""
    for scene in scenes:
        match scene:
            case Images():
                return sheet(scene)
            case Points():
                return points_picture(scene)
            case Network():
                return network_picture(scene)
            case Molecules():
                return molecules_picture(scene)
            case Pruning():
                return pruning_picture(scene)
            case Curves() | Members() | Matrix():
                continue
            case _:
                assert_never(scene)
    return None


def sheet(images: Images, gap: int = 2) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pictures side by side in a near-square grid; a single picture is returned as it is, exactly."""
    pixels = images.pixels
    n, height, width, _ = pixels.shape
    if n == 1:
        return pixels[0].copy()
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    page = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, dtype=np.uint8)
    for index in range(n):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        page[top : top + height, left : left + width] = pixels[index]
    return page


def enlarge(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Return small pictures enlarged smoothly until the longer side is about `side`; large ones are returned as is."""
    factor = side // max(pixels.shape[:2])
    if factor <= 1:
        return pixels
    size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def thumbnail(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture at most `side` a side, small ones enlarged by a whole factor."""
    image = Image.fromarray(enlarge(pixels, side))
    image.thumbnail((side, side))
    return np.asarray(image)


def points_picture(scene: Points, side: int = 480) -> UInt8[np.ndarray, "side side 3"]:
    """Return the contours of the loss as shades, the optimum set in green and the points in orange."""
    depth = np.log1p(scene.heights - scene.heights.min())
    bands = np.floor(depth / max(float(depth.max()), 1e-12) * 12) / 12
    colours = LOW + (HIGH - LOW) * bands[::-1, :, None]
    page = Image.fromarray(colours.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(page)
    for points, radius, colour in ((scene.optimum, 2, GREEN), (scene.positions, 5, ORANGE)):
        for column, row in _pixels(points, scene, side):
            box = (column - radius, row - radius, column + radius, row + radius)
            draw.ellipse(box, fill=colour, outline=INK if radius > 2 else None)
    return np.asarray(page)


def _pixels(points: np.ndarray, scene: Points, side: int) -> list[tuple[float, float]]:
    low = np.array([scene.x[0], scene.y[0]])
    high = np.array([scene.x[-1], scene.y[-1]])
    unit = (points - low) / (high - low)
    inside = np.isfinite(unit).all(axis=1) & (np.abs(unit - 0.5) <= 1.0).all(axis=1)
    return [(float(u) * (side - 1), float(1 - v) * (side - 1)) for u, v in unit[inside]]
