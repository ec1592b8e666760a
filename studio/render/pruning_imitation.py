"""How the channels of a layer were chosen, as HTML: a point that nears its target, its weights, and every moment."""

__all__ = ["KINDS", "View", "hull_of", "imitation_data", "imitation_html", "moments_of", "seen", "sentence"]

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from studio.render.network_measures import counted, number, say
from studio.scenes import Imitation

KINDS = {"add": "added", "reweight": "gave new weight to", "shrink": "shrank", "remove": "removed"}
WIDE, TALL, LOW, MARGIN = 360.0, 300.0, 190.0, 16.0
# The weights that all moments on the page have together, at most, and the bars of one moment.
MOST, BARS = 10_000, 40
# Errors below this are rounding.
FLOOR = 1e-12
# Weights travel as whole numbers of this small a part.
PART = 1e-5
# A dot is large from this share of the largest weight on, and middling from that one on.
SIZES = (0.5, 0.125)
HUGE = 1e100


@dataclass(frozen=True, eq=False)
class View:
    """The plane on paper: every contribution, the target, where the sparse point was, and the hull around them."""

    dots: Float[np.ndarray, "n 2"]
    target: Float[np.ndarray, " 2"]
    trail: Float[np.ndarray, "m 2"]
    hull: Float[np.ndarray, "h 2"]
    height: float


def imitation_html(scene: Imitation, group: str) -> str:
    """Return the plane, the timeline with the error left, one slider for both, and the weights of the kept channels."""
    moments = moments_of(scene)
    view = seen(scene, moments)
    share = f"{100 * scene.shown:.0f} %" if math.isfinite(scene.shown) else "an unknown part"
    told = (
        "Every dot is what one channel adds to the next layer, so far as a plane can show it: this one holds "
        f"{share} of the squared distances. A weighted mean of a few dots, the kept ones, has to come to the target."
    )
    rule = f" · {say(scene.rule)}" if scene.rule else ""
    side = _timeline(scene, moments, group) if len(moments) else ""
    return (
        f'<div class="st-prune-part"><h5>How {say(scene.layer)} is imitated{rule}</h5>'
        f'<p class="st-prune-note st-prune-told">{told}</p><div class="st-prune-two"><div>{_plane(scene, moments, view)}'
        f"</div><div>{side}</div></div></div>"
    )


def moments_of(scene: Imitation) -> Int[np.ndarray, " k"]:
    """Return which moments are shown: all, or evenly fewer where their weights together were too many for a page."""
    count = len(scene.steps)
    entries = int((scene.weights > 0).sum())
    fewer = min(count, max(2, count * MOST // entries)) if entries > MOST else count
    return np.unique(np.linspace(0, max(0, count - 1), fewer).round().astype(np.int64))


def seen(scene: Imitation, moments: Int[np.ndarray, " k"]) -> View:
    """Return the plane on paper, both axes on one scale and y upwards."""
    dots = _known(scene.positions)
    target = _known(scene.target)
    trail = _known(scene.weights[moments]) @ dots
    every = np.concatenate([dots, target[None], trail])
    low, high = every.min(axis=0), every.max(axis=0)
    span = np.maximum(high - low, 1e-9 * max(1.0, float(np.abs(every).max())))
    scale = min((WIDE - 2 * MARGIN) / span[0], (TALL - 2 * MARGIN) / span[1])
    height = max(LOW, float(span[1] * scale) + 2 * MARGIN)
    middle, centre = (low + high) / 2, np.array([WIDE / 2, height / 2])
    on_paper = [(part - middle) * np.array([scale, -scale]) + centre for part in (dots, target[None], trail)]
    return View(on_paper[0], on_paper[1][0], on_paper[2], hull_of(on_paper[0]), height)


def _known(values: np.ndarray) -> Float[np.ndarray, "..."]:
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


def _plane(scene: Imitation, moments: Int[np.ndarray, " k"], view: View) -> str:
    """Return the drawing of the last moment; the script moves what it finds by class."""
    last = len(moments) - 1
    sizes = ["", "", ""]
    if len(moments):
        channels, shares = _kept(scene, int(moments[last]))
        sizes = [_dots(view.dots[part]) for part in _sized(channels, shares)]
    kept = "".join(f'<path class="st-prune-kept st-prune-s{size}" d="{line}"/>' for size, line in enumerate(sizes))
    x, y = view.target
    now = view.trail[last] if len(moments) else view.target
    path = "L".join(_place(at) for at in view.trail)
    outline = f"M{'L'.join(_place(at) for at in view.hull)}Z" if len(view.hull) > 1 else ""
    kind = scene.kinds[int(moments[last])] if len(moments) else ""
    reach = _reach(view, last, int(scene.touched[moments[last]])) if len(moments) else ""
    point = (
        f'<path class="st-prune-reach" data-kind="{say(kind)}" d="{reach}"/><path class="st-prune-trail" d="M{path}"/>'
        f'<circle class="st-prune-now" cx="{now[0]:.1f}" cy="{now[1]:.1f}" r="5.5"/>'
    )
    return (
        f'<svg class="st-prune-plane" viewBox="0 0 {WIDE:g} {view.height:.0f}" role="img" aria-label="the contributions '
        f'of {counted(len(view.dots), "channel")}, their hull, the target and the weighted mean of the kept ones">'
        f'<path class="st-prune-hull" d="{outline}"/><path class="st-prune-dots" d="{_dots(view.dots)}"/>{kept}'
        f'<path class="st-prune-target" d="M{x - 7:.1f} {y:.1f}h14M{x:.1f} {y - 7:.1f}v14"/>'
        f'{point if len(moments) else ""}<circle class="st-prune-ring" r="8"/></svg>'
        '<div class="st-prune-legend"><span><i class="st-prune-key st-prune-k-kept"></i>kept, the larger the heavier</span>'
        '<span><i class="st-prune-key st-prune-k-all"></i>dropped</span><span><b class="st-prune-k-cross">+</b>target</span>'
        '<span><i class="st-prune-key st-prune-k-now"></i>weighted mean, with its path</span></div>'
    )


def _reach(view: View, moment: int, channel: int) -> str:
    """Return the line from where the point was before a moment to the channel that the moment touched."""
    if not 0 <= channel < len(view.dots):
        return ""
    return f"M{_place(view.trail[max(0, moment - 1)])}L{_place(view.dots[channel])}"


def _kept(scene: Imitation, moment: int) -> tuple[list[int], list[float]]:
    """Return the channels kept at a moment, the heaviest first, with their weights as they travel."""
    weights = _known(scene.weights[moment])
    order = np.lexsort((np.arange(len(weights)), -weights))[: int((weights > 0).sum())]
    return order.tolist(), [float(f"{max(PART, round(weights[each] / PART) * PART):.5f}") for each in order.tolist()]


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


def _timeline(scene: Imitation, moments: Int[np.ndarray, " k"], group: str) -> str:
    """Return the error left and what each moment did in lanes over one slider, the moment in words, and the weights."""
    last = len(moments) - 1
    step, at = 100 / max(1, last), [100.0 * each / max(1, last) for each in range(len(moments))]
    found = [scene.kinds[each] for each in moments.tolist()]
    pen = f'stroke-width="{min(6.0, max(1.0, 3 * step)):.1f}"'
    names, lanes = "", ""
    for lane, kind in enumerate(KINDS):
        line = "".join(f"M{x:.2f} {lane * 25 + 4}v17" for x, each in zip(at, found, strict=True) if each == kind)
        lanes += f'<path class="st-prune-{kind}" {pen} d="{line}"/>'
        names += f'<span><i class="st-prune-cell st-prune-bg-{kind}"></i>{kind} {found.count(kind)}</span>'
    cursor = f'<path class="st-prune-at" d="M{at[last]:.2f} 0V100"/>'
    low = number(float(10 ** _depths(scene, moments).min()))
    words = say(sentence(scene, int(moments[last])))
    few = f" {len(moments)} of {len(scene.steps)} moments are shown." if len(moments) < len(scene.steps) else ""
    return (
        f'<div class="st-prune-time"><span class="st-prune-axis"><b>error</b><small>1</small><small>{low}</small></span>'
        f'<svg class="st-prune-fall" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="the error '
        f'left, from 1 to {low}, on a logarithmic scale"><path class="st-prune-line" d="M{_fall(scene, moments, at)}"/>'
        f'{cursor}</svg><span class="st-prune-lanes">{names}</span><svg class="st-prune-kinds" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" role="img" aria-label="what each moment did">{lanes}{cursor}</svg>'
        '<label class="st-prune-slide st-prune-quiet"><span>moment</span>'
        f'<input type="range" class="st-prune-moment" min="0" max="{last}" value="{last}"></label></div>'
        f'<p class="st-prune-words st-prune-moment-words">{words}</p>'
        f'<p class="st-prune-note">The error is relative to the first moment’s, on a logarithmic scale.{few}</p>'
        f"{_weights(scene, int(moments[last]), group)}"
    )


def _depths(scene: Imitation, moments: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Return the errors as powers of ten, none below the floor."""
    return np.log10(np.clip(np.nan_to_num(scene.errors[moments], nan=1.0), FLOOR, HUGE))


def _fall(scene: Imitation, moments: Int[np.ndarray, " k"], at: list[float]) -> str:
    depths = _depths(scene, moments)
    top, span = float(depths.max()), float(np.ptp(depths)) or 1.0
    line = [f"{x:.2f} {4 + 92 * (top - depth) / span:.1f}" for x, depth in zip(at, depths.tolist(), strict=True)]
    return "L".join([*line, f"100 {line[-1].split()[1]}"])


def sentence(scene: Imitation, moment: int) -> str:
    """Return what a moment did and what was left after it, in words."""
    kind = scene.kinds[moment]
    error = float(scene.errors[moment])
    left = "no error left" if 0 <= error < FLOOR else f"error {number(error)} of the first channel’s"
    return (
        f"Step {int(scene.steps[moment]):,}: {KINDS.get(kind, kind)} channel {int(scene.touched[moment])}; "
        f"{int(scene.kept[moment]):,} kept; {left}."
    )


def _weights(scene: Imitation, moment: int, group: str) -> str:
    """Return a bar a kept channel, the heaviest first: each a radio button with what it weighs."""
    channels, shares = _kept(scene, moment)
    whole, most = scene.weights.shape[1], max(shares, default=1.0)
    bars = "".join(
        f'<input type="radio" name="channel-{say(group)}" value="{channel}" style="--h:{share / most:.3f}" '
        f'aria-label="{(words := _weight(channel, share, whole))}" title="{words}"><span>{words}</span>'
        for channel, share in list(zip(channels, shares, strict=True))[:BARS]
    )
    return (
        '<div class="st-prune-weights"><b>Weights of the kept channels</b> <small class="st-prune-more">'
        f'{_more(len(channels))}</small><div class="st-prune-bars" role="radiogroup" '
        f'aria-label="weights of the kept channels" data-group="{say(group)}">{bars}</div></div>'
    )


def _weight(channel: int, share: float, whole: int) -> str:
    return f"channel {channel}: {100 * share:.1f} % of the weight, {whole * share:.1f} times its old one"


def _more(kept: int) -> str:
    return f"the {BARS} heaviest of {kept}" if kept > BARS else "the heaviest first"


def imitation_data(scene: Imitation | None) -> dict[str, object]:
    """Return what a script needs to show any moment; nothing where there is none."""
    if scene is None or not len(scene.steps):
        return {}
    moments = moments_of(scene)
    view = seen(scene, moments)
    kept = [_kept(scene, each) for each in moments.tolist()]
    return {
        "layer": scene.layer,
        "bars": BARS,
        "sizes": SIZES,
        "at": view.trail.round(1).tolist(),
        "touched": scene.touched[moments].tolist(),
        "kinds": [scene.kinds[each] for each in moments.tolist()],
        "steps": scene.steps[moments].tolist(),
        "words": [sentence(scene, each) for each in moments.tolist()],
        "channels": [channels for channels, _ in kept],
        "weights": [[round(share / PART) for share in shares] for _, shares in kept],
    }
