"""A still of conformers without a browser: the lowest one as balls and sticks, the others as thin lines behind it."""

__all__ = ["ELEMENTS", "OTHER", "energy_colours", "orientation", "picture"]

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from studio.render.molecules_text import kekulised, ranked
from studio.scenes import Molecules

SIDE, FINE = 480, 3
PAPER = (247, 248, 250)
ELEMENTS = {
    "H": (222, 226, 232), "B": (226, 158, 128), "C": (88, 98, 114), "N": (52, 104, 220), "O": (214, 50, 46),
    "F": (60, 168, 100), "Si": (196, 160, 120), "P": (230, 126, 16), "S": (214, 166, 10), "Cl": (40, 156, 70),
    "Br": (150, 72, 44), "I": (120, 50, 160), "Se": (220, 150, 20),
}  # fmt: skip
OTHER = (190, 90, 170)
# From the lowest energy to the highest, darker to lighter.
SCALE = np.array([[29.0, 78, 190], [124, 58, 210], [212, 44, 120], [240, 140, 20]])
BALL, SMALL, STICK, THIN = 0.36, 0.23, 0.13, 0.035
LEAST, MARGIN, FOG = 1.6, 0.9, 0.45
# How a stick is shaded: the width and the brightness of its layers, and how far they lie towards the light.
LAYERS = ((1.0, 0.62, 0.0), (0.82, 0.9, 0.05), (0.5, 1.1, 0.14), (0.2, 1.32, 0.22))
LIGHT = np.array([-0.42, 0.55, 0.72])


@dataclass(frozen=True, eq=False)
class Camera:
    """How the molecule is looked at: its middle, its turn, and how many fine pixels an angstrom takes."""

    middle: Float[np.ndarray, " 3"]
    turn: Float[np.ndarray, "3 3"]
    scale: float

    def placed(self, positions: Float[np.ndarray, "a 3"]) -> Float[np.ndarray, "a 3"]:
        """Return columns and rows of fine pixels, and the height towards the viewer in angstrom."""
        seen = (positions - self.middle) @ self.turn.T
        half = SIDE * FINE / 2
        return np.column_stack([half + self.scale * seen[:, 0], half - self.scale * seen[:, 1], seen[:, 2]])


def picture(scene: Molecules) -> UInt8[np.ndarray, "h w 3"]:
    """Return the conformers as 480 by 480 pixels, looked at along the axis in which they are flattest.

    The lowest conformer is in the colours of its elements; the others are lines coloured by energy, nearest ones on
    top. An empty sheet where there are none.
    """
    page = Image.new("RGB", (SIDE * FINE, SIDE * FINE), PAPER)
    if len(scene.positions):
        camera = _camera(scene)
        order = ranked(scene)
        _lines(page, scene, camera, order[:0:-1])
        _balls_and_sticks(page, scene, camera.placed(scene.positions[order[0]]), camera.scale)
    return np.asarray(page.reduce(FINE))


def energy_colours(energies: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return a colour an energy, from blue at the lowest over purple to orange at the highest; no number is grey."""
    there = np.isfinite(energies)
    low = float(energies[there].min()) if there.any() else 0.0
    width = max(float(energies[there].max()) - low, 1e-9) if there.any() else 1.0
    places = np.where(there, energies - low, 0.0) / width * (len(SCALE) - 1)
    mixed = np.stack([np.interp(places, np.arange(len(SCALE)), channel) for channel in SCALE.T], axis=1)
    return np.where(there[:, None], mixed, 140.0).round().astype(np.uint8)


def orientation(scene: Molecules) -> Float[np.ndarray, "3 3"]:
    """Return the rotation that lays the longest axis of the heavy atoms to the right and the shortest to the viewer."""
    heavy = np.array([symbol != "H" for symbol in scene.symbols])
    if not len(scene.positions) or heavy.sum() < 2:
        return np.eye(3)
    places = scene.positions[:, heavy].astype(float)
    places = places - places.mean(axis=(0, 1))
    axes = np.linalg.eigh(np.einsum("nax,nay->xy", places, places))[1].T[::-1]
    # An axis has no sign of its own: late atoms lie right and up.
    order = np.linspace(-1.0, 1.0, places.shape[1])
    lean = np.einsum("a,ax,kx->k", order, places.mean(axis=0), axes)
    axes = axes * np.where(lean < 0, -1.0, 1.0)[:, None]
    axes[2] *= np.sign(np.linalg.det(axes))
    return axes


def _camera(scene: Molecules) -> Camera:
    turn = orientation(scene)
    seen = scene.positions.reshape(-1, 3).astype(float) @ turn.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    half = max(float((high - low)[:2].max()) / 2 + MARGIN, LEAST)
    return Camera(((low + high) / 2) @ turn, turn, SIDE * FINE / 2 / half)


def _lines(page: Image.Image, scene: Molecules, camera: Camera, others: np.ndarray) -> None:
    """Draw the other conformers' bonds without those of hydrogens, far ones first and paler."""
    heavy = np.array([symbol != "H" for symbol in scene.symbols])
    bonds = scene.bonds[heavy[scene.bonds].all(axis=1)] if heavy.any() else scene.bonds
    if not len(others) or not len(bonds):
        return
    placed = np.stack([camera.placed(scene.positions[index]) for index in others])
    ends = placed[:, bonds].reshape(-1, 2, 3)
    colours = np.repeat(energy_colours(scene.energies)[others], len(bonds), axis=0).astype(float)
    depth = ends[:, :, 2].mean(axis=1)
    faded = _faded(colours, depth, 0.35)
    draw, width = ImageDraw.Draw(page), max(FINE, round(2 * THIN * camera.scale))
    for index in np.argsort(depth, kind="stable").tolist():
        (x, y, _), (right, bottom, _) = ends[index].tolist()
        draw.line((x, y, right, bottom), fill=tuple(faded[index].tolist()), width=width)


def _balls_and_sticks(page: Image.Image, scene: Molecules, placed: Float[np.ndarray, "a 3"], scale: float) -> None:
    """Draw the atoms as shaded balls and the halves of the bonds as shaded sticks, far ones first."""
    colours = np.array([ELEMENTS.get(symbol, OTHER) for symbol in scene.symbols], dtype=float)
    radii = scale * np.array([SMALL if symbol == "H" else BALL for symbol in scene.symbols])
    starts, ends, widths, owners = _halves(scene, placed, scale)
    depth = np.concatenate([placed[:, 2], (starts[:, 2] + ends[:, 2]) / 2 - 0.05])
    tints = _faded(np.concatenate([colours, colours[owners]]), depth, 0.0)
    for index in np.argsort(depth, kind="stable").tolist():
        if index < len(placed):
            ball = _ball(max(2, round(float(radii[index]))), tints[index])
            column, row = placed[index, :2].round().astype(int).tolist()
            corner = (column - ball.width // 2, row - ball.height // 2)
            page.paste(ball, corner, ball)
        else:
            half = index - len(placed)
            _stick(page, starts[half], ends[half], float(widths[half]), tints[index])


def _halves(
    scene: Molecules, placed: Float[np.ndarray, "a 3"], scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return where the halves of the sticks begin and end, how wide they are, and whose colour they have."""
    starts, ends, widths, owners = [], [], [], []
    for (one, other), order in zip(scene.bonds.tolist(), kekulised(scene).tolist(), strict=True):
        count = min(3, max(1, round(order)))
        along = placed[other] - placed[one]
        length = float(np.hypot(along[0], along[1]))
        across = np.array([-along[1], along[0], 0.0]) / length if length > 1e-9 else np.zeros(3)
        width = 2 * STICK * scale * (1.0, 0.62, 0.46)[count - 1]
        for step in np.linspace(-1.0, 1.0, count) if count > 1 else (0.0,):
            shift = across * step * STICK * scale * (1.05, 1.05, 1.35)[count - 1]
            middle = (placed[one] + placed[other]) / 2 + shift
            for end in (one, other):
                starts.append(placed[end] + shift)
                ends.append(middle)
                widths.append(width)
                owners.append(end)
    return (
        np.array(starts).reshape(-1, 3), np.array(ends).reshape(-1, 3), np.array(widths), np.array(owners, dtype=int)
    )  # fmt: skip


def _faded(colours: Float[np.ndarray, "m 3"], depth: Float[np.ndarray, " m"], least: float) -> UInt8[np.ndarray, "m 3"]:
    """Return colours mixed with the paper, the more so the farther away."""
    width = max(float(np.ptp(depth)), 1e-9)
    share = least + (FOG - least / 2) * (depth.max() - depth) / max(width, 4.0)
    return (colours + (np.array(PAPER) - colours) * np.clip(share, 0, 0.8)[:, None]).round().astype(np.uint8)


def _stick(page: Image.Image, start: np.ndarray, end: np.ndarray, width: float, tint: np.ndarray) -> None:
    """Draw a cylinder as layers of lines, the brightest towards the light."""
    draw, towards = ImageDraw.Draw(page), np.array([LIGHT[0], -LIGHT[1]])
    for share, bright, aside in LAYERS:
        shift = towards * aside * width
        points = [tuple((place[:2] + shift).tolist()) for place in (start, end)]
        fill = tuple(np.clip(tint * bright, 0, 255).astype(int).tolist())
        draw.line(points, fill=fill, width=max(1, round(width * share)))


def _ball(radius: int, tint: np.ndarray) -> Image.Image:
    """Return a sphere lit from the upper left, transparent around it."""
    steps = (np.arange(2 * radius + 1) - radius) / radius
    x, y = np.meshgrid(steps, -steps)
    inside = x**2 + y**2 <= 1
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    light = LIGHT / np.linalg.norm(LIGHT)
    lit = np.clip(x * light[0] + y * light[1] + z * light[2], 0, 1)
    glow = np.clip(lit, 0, 1) ** 22
    shades = tint * (0.5 + 0.62 * lit)[..., None] + 105 * glow[..., None]
    pixels = np.dstack([np.clip(shades, 0, 255), 255.0 * inside]).astype(np.uint8)
    return Image.fromarray(pixels, "RGBA")
