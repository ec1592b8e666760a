"""The plane of the contributions as a drawing: a weighted mean of a few of them nears its target, inside their hull."""

__all__ = [
    "CROWD",
    "HUGE",
    "SIZES",
    "WIDE",
    "View",
    "fine",
    "hull_of",
    "known",
    "moments_of",
    "plane_html",
    "seen",
    "window",
]

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from studio.render.network_measures import counted, say
from studio.scenes import Imitation

WIDE, TALL, LOW, MARGIN = 360.0, 300.0, 190.0, 16.0
# The weights that all moments on the page have together, at most.
MOST = 10_000
# A dot is large from this share of the largest weight on, and middling from that one on; above CROWD all are small.
SIZES, CROWD = (0.5, 0.125), 600
# The close-up shows so many moments, and enlarges this much at most.
RECENT, CLOSEST = 5, 512.0
HUGE = 1e100


@dataclass(frozen=True, eq=False)
class View:
    """The plane on paper: every contribution, the target, where the sparse point was, and the hull around them."""

    dots: Float[np.ndarray, "n 2"]
    target: Float[np.ndarray, " 2"]
    trail: Float[np.ndarray, "m 2"]
    hull: Float[np.ndarray, "h 2"]
    height: float

    def close(self, moment: int) -> float:
        """Return how many times the close-up of a moment is enlarged, a power of 2: its last few places just fit."""
        near = np.abs(self.trail[max(0, moment - RECENT) : moment + 1] - self.target).max(initial=0.0)
        return float(2 ** math.floor(math.log2(min(CLOSEST, max(1.0, WIDE / 2 / max(1.2 * near, 1e-9))))))


def moments_of(scene: Imitation) -> Int[np.ndarray, " k"]:
    """Return which moments are shown: all, or evenly fewer where their weights together were too many for a page."""
    count = len(scene.steps)
    entries = int((scene.weights > 0).sum())
    fewer = min(count, max(2, count * MOST // entries)) if entries > MOST else count
    return np.unique(np.linspace(0, max(0, count - 1), fewer).round().astype(np.int64))


def seen(scene: Imitation, moments: Int[np.ndarray, " k"]) -> View:
    """Return the plane on paper, both axes on one scale and y upwards."""
    dots = known(scene.positions)
    target = known(scene.target)
    trail = known(scene.weights[moments]) @ dots
    every = np.concatenate([dots, target[None], trail])
    low, high = every.min(axis=0), every.max(axis=0)
    span = np.maximum(high - low, 1e-9 * max(1.0, float(np.abs(every).max())))
    scale = min((WIDE - 2 * MARGIN) / span[0], (TALL - 2 * MARGIN) / span[1])
    height = max(LOW, float(span[1] * scale) + 2 * MARGIN)
    middle, centre = (low + high) / 2, np.array([WIDE / 2, height / 2])
    on_paper = [(part - middle) * np.array([scale, -scale]) + centre for part in (dots, target[None], trail)]
    return View(on_paper[0], on_paper[1][0], on_paper[2], hull_of(on_paper[0]), height)


def known(values: np.ndarray) -> Float[np.ndarray, "..."]:
    """Return numbers that can be drawn: 0 for those that are none, and none too large."""
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(-HUGE, HUGE)


def hull_of(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "h 2"]:
    """Return the corners of the convex hull, going round once (Andrew's monotone chain)."""
    ordered = np.unique(points, axis=0).tolist()
    if len(ordered) < 3:
        return np.array(ordered, dtype=np.float64).reshape(-1, 2)
    corners: list[list[float]] = []
    for line in (ordered, ordered[::-1]):
        chain: list[list[float]] = []
        for point in line:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        corners += chain[:-1]
    return np.array(corners, dtype=np.float64)


def _turn(one: list[float], two: list[float], three: list[float]) -> float:
    return (two[0] - one[0]) * (three[1] - one[1]) - (two[1] - one[1]) * (three[0] - one[0])


def plane_html(
    scene: Imitation, view: View, moments: Int[np.ndarray, " k"], kept: tuple[list[int], list[float]]
) -> str:
    """Return the drawing of the last moment, `kept` its channels and weights, the heaviest first."""
    crowd = " st-prune-crowd" if len(view.dots) > CROWD else ""
    label = f"{counted(len(view.dots), 'channel')}, their hull, the target and the weighted mean of the kept ones"
    outline = f"M{'L'.join(_place(at) for at in view.hull)}Z" if len(view.hull) > 1 else ""
    dots = "".join(
        f'<path class="st-prune-kept st-prune-s{size}" d="{_dots(view.dots[part])}"/>'
        for size, part in enumerate(_sized(*kept))
    )
    return (
        f'<div class="st-prune-look"><svg class="st-prune-plane{crowd}" viewBox="0 0 {WIDE:g} {view.height:.0f}" '
        f'role="img" aria-label="the contributions of {label}"><path class="st-prune-hull" d="{outline}"/>'
        f'<path class="st-prune-dots" d="{_dots(view.dots)}"/>{dots}{_way(scene, view, moments)}'
        f'<path class="st-prune-target" d="{_cross(view.target, 9.0)}"/><circle class="st-prune-ring" r="8"/></svg>'
        f"<div>{_close(view, len(moments) - 1)}{_legend()}</div></div>"
    )


def _way(scene: Imitation, view: View, moments: Int[np.ndarray, " k"]) -> str:
    """Return the path of the weighted mean to its last place, and what the last moment reached for."""
    if not len(moments):
        return ""
    last, (x, y) = len(moments) - 1, view.trail[-1].tolist()
    channel = int(scene.touched[moments[last]])
    from_here = view.trail[max(0, last - 1)]
    reach = f"M{fine(from_here)}L{_place(view.dots[channel])}" if 0 <= channel < len(view.dots) else ""
    return (
        f'<path class="st-prune-reach" data-kind="{say(scene.kinds[moments[last]])}" d="{reach}"/>'
        f'<path class="st-prune-trail" d="{_trail(view)}"/>'
        f'<circle class="st-prune-now" cx="{x:.3f}" cy="{y:.3f}" r="5.5"/>'
    )


def _trail(view: View) -> str:
    return f"M{'L'.join(fine(at) for at in view.trail)}"


def _cross(target: Float[np.ndarray, " 2"], arm: float) -> str:
    x, y = target.tolist()
    return f"M{x - arm:.1f} {y:.1f}h{2 * arm:g}M{x:.1f} {y - arm:.1f}v{2 * arm:g}"


def _legend() -> str:
    marks = (
        ('<i class="st-prune-key st-prune-k-kept"></i>', "kept, the larger the heavier"),
        ('<i class="st-prune-key st-prune-k-all"></i>', "dropped"),
        ('<b class="st-prune-k-cross">+</b>', "target"),
        ('<i class="st-prune-key st-prune-k-now"></i>', "weighted mean, with its path"),
    )
    return f'<div class="st-prune-legend">{"".join(f"<span>{mark}{words}</span>" for mark, words in marks)}</div>'


def _sized(channels: list[int], shares: list[float]) -> list[list[int]]:
    """Return the channels that are heavy, middling and light."""
    most = max(shares, default=1.0)
    sizes: list[list[int]] = [[], [], []]
    for channel, share in zip(channels, shares, strict=True):
        sizes[sum(share < bound * most for bound in SIZES)].append(channel)
    return sizes


def _dots(places: np.ndarray) -> str:
    return "".join(f"M{_place(at)}h0" for at in places)


def _place(at: np.ndarray) -> str:
    return f"{at[0]:.1f} {at[1]:.1f}"


def _close(view: View, moment: int) -> str:
    """Return a close-up of the target with the last part of the path; nothing where the point never moved."""
    if moment < 1:
        return ""
    return (
        f'<div class="st-prune-close"><svg viewBox="{window(view, moment)}" role="img" aria-label="close-up of the '
        f'target"><path class="st-prune-trail" d="{_trail(view)}"/><path class="st-prune-tip" '
        f'd="M{fine(view.trail[moment])}h0"/><path class="st-prune-target" d="{_cross(view.target, WIDE)}"/></svg>'
        f"<small>close-up of the target, enlarged <output>{view.close(moment):g}</output> times</small></div>"
    )


def window(view: View, moment: int) -> str:
    """Return, as a viewBox, the part of the plane that the close-up of a moment shows."""
    half = WIDE / 2 / view.close(moment)
    return f"{view.target[0] - half:.3f} {view.target[1] - half:.3f} {2 * half:.3f} {2 * half:.3f}"


def fine(at: np.ndarray) -> str:
    """Return a place as SVG writes it, fine enough for the close-up."""
    return f"{at[0]:.3f} {at[1]:.3f}"
