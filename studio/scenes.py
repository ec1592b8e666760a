"""Scenes: the closed union of frozen numpy records that a surface can draw."""

__all__ = ["Curves", "Images", "Members", "Points", "Scene", "Series"]

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True, eq=False)
class Images:
    """n pictures of one size as 8-bit RGB, each with a caption."""

    pixels: UInt8[np.ndarray, "n h w 3"]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Points:
    """Points in the plane over the contours of a loss.

    `values` are the points' losses; `heights` (rows are y) is the loss on the grid `x` by `y`;
    `optimum` is the known optimum set as a polyline or scattered points, empty where unknown.
    """

    positions: Float[np.ndarray, "n 2"]
    values: Float[np.ndarray, " n"]
    x: Float[np.ndarray, " w"]
    y: Float[np.ndarray, " h"]
    heights: Float[np.ndarray, "h w"]
    optimum: Float[np.ndarray, "m 2"]


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a chart."""

    name: str
    x: Float[np.ndarray, " k"]
    y: Float[np.ndarray, " k"]


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines over a shared pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_y: bool = False


@dataclass(frozen=True, eq=False)
class Members:
    """A population in its trade-off: each member's loss against its distance to the nearest other one.

    `captions` describe the members in a line each; `pixels` are their pictures, where they have some.
    """

    title: str
    loss_label: str
    distance_label: str
    losses: Float[np.ndarray, " n"]
    distances: Float[np.ndarray, " n"]
    captions: tuple[str, ...]
    pixels: UInt8[np.ndarray, "n h w 3"] | None = None
    log_loss: bool = False


Scene = Images | Points | Curves | Members
