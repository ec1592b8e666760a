"""What classifiers decide, as pictures: maps of the plane in the classes' colours, and small pictures enlarged."""

__all__ = ["PALETTE", "decision_map", "disagreement_map", "enlarged", "signed_map", "with_points"]

import numpy as np
from jaxtyping import Float, Int, UInt8

PALETTE = np.array([[0, 114, 178], [230, 159, 0], [0, 158, 115]], dtype=np.float64)
DARK = np.array([60.0, 20.0, 80.0])
PALE, FULL = 0.15, 0.55
SIDE = 128


def decision_map(probabilities: Float[np.ndarray, "h w k"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return each place in its most likely class's colour (Okabe and Ito's, told apart by most eyes).

    The paler a place, the less sure; the first row is drawn at the bottom. At most three classes.
    """
    chance = 1 / probabilities.shape[2]
    sure = ((probabilities.max(axis=2) - chance) / (1 - chance)).clip(0, 1)[:, :, None]
    colour = PALETTE[probabilities.argmax(axis=2)]
    return _eight_bit(255 - (PALE + (FULL - PALE) * sure) * (255 - colour))[::-1].copy()


def disagreement_map(shares: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return how many members are outvoted at each place, from white (0) to dark (1); the first row is the bottom."""
    return _eight_bit(255 - shares.clip(0, 1)[:, :, None] * (255 - DARK))[::-1].copy()


def signed_map(values: Float[np.ndarray, "h w"], side: int = SIDE) -> UInt8[np.ndarray, "hh ww 3"]:
    """Return values in [-1, 1] from blue through white to orange, about `side` high; the first row is the bottom."""
    factor = max(1, round(side / values.shape[0]))
    large = values.clip(-1, 1).repeat(factor, axis=0).repeat(factor, axis=1)[::-1, :, None]
    return _eight_bit(255 - np.abs(large) * (255 - np.where(large < 0, PALETTE[0], PALETTE[1])))


def with_points(
    picture: UInt8[np.ndarray, "h w 3"], places: Float[np.ndarray, "m 2"], labels: Int[np.ndarray, " m"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a map with points in their class's full colour on a dark rim; `places` are (x, y) in [0, 1], y upwards."""
    drawn, (height, width) = picture.copy(), picture.shape[:2]
    columns = (places[:, 0] * (width - 1)).round().astype(int)
    rows = ((1 - places[:, 1]) * (height - 1)).round().astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows, labels = columns[inside], rows[inside], labels[inside]
    for size, colours in ((2, np.zeros((len(labels), 3))), (1, PALETTE[labels])):
        for down in range(-size, size + 1):
            for right in range(-size, size + 1):
                drawn[(rows + down).clip(0, height - 1), (columns + right).clip(0, width - 1)] = colours
    return drawn


def enlarged(pictures: Float[np.ndarray, "n h w c"], side: int = SIDE) -> UInt8[np.ndarray, "n hh ww 3"]:
    """Return pictures with values in [0, 1] as RGB, every pixel a square block, about `side` high."""
    factor = max(1, round(side / pictures.shape[1]))
    large = pictures.clip(0, 1).repeat(factor, axis=1).repeat(factor, axis=2)
    return _eight_bit(255 * np.broadcast_to(large, (*large.shape[:3], 3)))


def _eight_bit(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
