"""How the channels of a layer were chosen, as HTML: the plane, every moment on one slider, and the weights."""

__all__ = ["FLOOR", "KINDS", "fallen", "imitation_data", "imitation_html", "plain", "sentence"]

import math

import numpy as np
from jaxtyping import Float, Int

from studio.render.network_measures import number, say
from studio.render.pruning_plane import HUGE, SIZES, fine, known, moments_of, plane_html, seen, window
from studio.scenes import Imitation

KINDS = {"add": "added", "reweight": "gave new weight to", "shrink": "shrank", "remove": "removed"}
# The bars of one moment, at most.
BARS = 40
# Errors below this are rounding.
FLOOR = 1e-12
# Weights travel as whole numbers of this small a part.
PART = 1e-5


def imitation_html(scene: Imitation, group: str) -> str:
    """Return the plane, the timeline with the error left, one slider for both, and the weights of the kept channels."""
    moments = moments_of(scene)
    kept: tuple[list[int], list[float]] = _kept(scene, int(moments[-1])) if len(moments) else ([], [])
    view = seen(scene, moments)
    share = f"{100 * scene.shown:.0f} %" if math.isfinite(scene.shown) else "an unknown part"
    told = (
        "Every dot is what one channel adds to the next layer, so far as a plane can show it: this one holds "
        f"{share} of the squared distances. A weighted mean of a few dots, the kept ones, has to come to the target."
    )
    rule = f" · {say(plain(scene.rule))}" if scene.rule else ""
    side = _timeline(scene, moments, group) if len(moments) else ""
    return (
        f'<div class="st-prune-part"><h5>How {say(scene.layer)} is imitated{rule}</h5>'
        f'<p class="st-prune-note st-prune-told">{told}</p><div class="st-prune-two"><div>'
        f"{plane_html(scene, view, moments, kept)}</div><div>{side}</div></div></div>"
    )


def plain(rule: str) -> str:
    """Return the name of a rule as people write it: line search."""
    return rule.replace("_", " ")


def _kept(scene: Imitation, moment: int) -> tuple[list[int], list[float]]:
    """Return the channels kept at a moment, the heaviest first, with their weights as they travel."""
    weights = known(scene.weights[moment])
    order = np.lexsort((np.arange(len(weights)), -weights))[: int((weights > 0).sum())]
    return order.tolist(), np.maximum(PART, weights[order].round(5)).tolist()


def _timeline(scene: Imitation, moments: Int[np.ndarray, " k"], group: str) -> str:
    """Return the error left and what each moment did in lanes over one slider, the moment in words, and the weights."""
    last, depths = len(moments) - 1, fallen(scene.errors[moments])
    step, at = 100 / max(1, last), [100.0 * each / max(1, last) for each in range(len(moments))]
    found = [scene.kinds[each] for each in moments.tolist()]
    pen = f'stroke-width="{min(6.0, max(1.0, 3 * step)):.1f}"'
    names, lanes = "", ""
    for lane, kind in enumerate(KINDS):
        line = "".join(f"M{x:.2f} {lane * 25 + 4}v17" for x, each in zip(at, found, strict=True) if each == kind)
        lanes += f'<path class="st-prune-{kind}" {pen} d="{line}"/>'
        names += f'<span><i class="st-prune-cell st-prune-bg-{kind}"></i>{kind} {found.count(kind)}</span>'
    cursor = f'<path class="st-prune-at" d="M{at[last]:.2f} 0V100"/>'
    high, low = (number(float(10**depth)) for depth in (depths.max(), depths.min()))
    words = say(sentence(scene, int(moments[last])))
    fall = f"the error left, from {high} to {low}, on a logarithmic scale"
    frame = 'viewBox="0 0 100 100" preserveAspectRatio="none" role="img"'
    few = f" {len(moments)} of {len(scene.steps)} moments are shown." if len(moments) < len(scene.steps) else ""
    return (
        '<div class="st-prune-time"><span class="st-prune-axis"><b>error</b>'
        f'<small>{high}</small><small>{low}</small></span><svg class="st-prune-fall" {frame} aria-label="{fall}">'
        f'<path class="st-prune-line" d="M{_fall(depths, at)}"/>{cursor}</svg>'
        f'<span class="st-prune-lanes">{names}</span>'
        f'<svg class="st-prune-kinds" {frame} aria-label="what each moment did">{lanes}{cursor}</svg>'
        '<label class="st-prune-slide st-prune-quiet"><span>moment</span>'
        f'<input type="range" class="st-prune-moment" min="0" max="{last}" value="{last}"></label></div>'
        f'<p class="st-prune-words st-prune-moment-words">{words}</p>'
        f'<p class="st-prune-note">The error is relative to the first moment’s, on a logarithmic scale.{few}</p>'
        f"{_weights(scene, int(moments[last]), group)}"
    )


def fallen(errors: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Return the errors as powers of ten, none below the floor."""
    return np.log10(np.clip(np.nan_to_num(errors.astype(np.float64), nan=1.0), FLOOR, HUGE))


def _fall(depths: Float[np.ndarray, " k"], at: list[float]) -> str:
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
        "at": [fine(at) for at in view.trail],
        "windows": [window(view, moment) for moment in range(len(moments))],
        "times": [view.close(moment) for moment in range(len(moments))],
        "touched": scene.touched[moments].tolist(),
        "kinds": [scene.kinds[each] for each in moments.tolist()],
        "steps": scene.steps[moments].tolist(),
        "words": [sentence(scene, each) for each in moments.tolist()],
        "channels": [channels for channels, _ in kept],
        "weights": [[round(share / PART) for share in shares] for _, shares in kept],
    }
