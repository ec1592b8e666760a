"""The layers of a network that is pruned, in order: every channel a cell, the stronger the more it weighs."""

__all__ = ["LEVELS", "cells", "layers_html", "level_of"]

import math

import numpy as np
from jaxtyping import Float, Int

from studio.render.network_measures import say
from studio.scenes import Channels

# A weight below the first of these is the palest, one above the last the strongest; 1 is a channel as it was.
LEVELS = (0.5, 2.0, 8.0, 32.0)
NAMES = ("below ½", "about 1", "4", "16", "above 32")
# So many cells a layer at most, and so many in all.
MOST, ALL = 600, 12_000
# What a state is called on a card, and on a small one.
STATES = {"waiting": ("waiting", ""), "now": ("now", "now"), "done": ("done", "✓"), "fixed": ("fixed", "")}
# Up to so many cards are large.
FEW = 8
LARGEST, STRETCH, ALONE = 18, 3.2, 12.0


def layers_html(layers: tuple[Channels, ...]) -> str:
    """Return a card a layer with its name, what is kept of it and its cells, and what the colours mean."""
    if not layers:
        return '<p class="st-prune-note">There are no layers to prune yet.</p>'
    most = min(MOST, max(1, ALL // len(layers)))
    stretch, few = max(STRETCH, ALONE / len(layers)), len(layers) <= FEW
    items = "".join(_card(layer, most, stretch, few) for layer in layers)
    largest = max((len(layer.weights) for layer in layers), default=0)
    size = "few" if few else "many"
    return f'<ol class="st-prune-layers st-prune-{size}">{items}</ol>{_legend(largest > most)}{_reasons(layers)}'


def _card(layer: Channels, most: int, stretch: float, few: bool) -> str:
    kept, whole = int((layer.weights > 0).sum()), len(layer.weights)
    state = layer.state if layer.state in STATES else "waiting"
    (name, mark), divided = STATES[state], " of " if few else "/"
    why = f": {layer.why}" if layer.why else ""
    return (
        f'<li class="st-prune-layer st-prune-is-{state}" title="{say(layer.name)}{say(why)}">'
        f"<div><b>{say(layer.name)}</b><em>{name if few else mark}</em></div>{_drawing(layer, most, stretch, name)}"
        f"<small>{f'{kept:,}{divided}{whole:,}' if whole else ''}</small></li>"
    )


def _drawing(layer: Channels, most: int, stretch: float, state: str) -> str:
    levels = level_of(cells(layer.weights, most))
    if not len(levels):
        return ""
    columns = max(1, math.ceil(math.sqrt(len(levels) * stretch)))
    rows = math.ceil(len(levels) / columns)
    words = f"{int((layer.weights > 0).sum()):,} of {len(layer.weights):,} kept, {state}"
    paths = []
    for level in range(len(LEVELS) + 2):
        line = _runs(levels == level, columns)
        if line:
            paths.append(f'<path class="st-prune-l{level}" d="{line}"/>')
            paths += [f'<path class="st-prune-hole" d="{line}"/>'] if not level else []
    return (
        f'<svg viewBox="0 0 {columns} {rows}" style="max-width:{LARGEST * columns}px" role="img" '
        f'aria-label="{say(layer.name)}: {words}"><g transform="translate(.08 .5)">{"".join(paths)}</g></svg>'
    )


def cells(weights: Float[np.ndarray, " n"], most: int) -> Float[np.ndarray, " k"]:
    """Return the weight of each cell: a channel's, or where there are more than `most` the mean of a few."""
    known = np.nan_to_num(weights.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    each = max(1, math.ceil(len(known) / most))
    starts = np.arange(0, len(known), each)
    if each == 1:
        return known
    sizes = np.diff(np.append(starts, len(known)))
    return np.add.reduceat(known, starts) / sizes


def level_of(weights: Float[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """Return 0 for what is dropped, else 1 to 5, the more the larger the weight."""
    return np.where(weights > 0, 1 + np.searchsorted(LEVELS, weights, side="right"), 0).astype(np.int64)


def _runs(lit: np.ndarray, columns: int) -> str:
    """Return a line through every run of lit cells, row by row; dashes cut it into cells."""
    padded = np.zeros((math.ceil(len(lit) / columns), columns + 2), dtype=np.int8)
    padded[:, 1:-1].flat[: len(lit)] = lit
    turns = np.diff(padded, axis=1)
    rows, starts = np.nonzero(turns == 1)
    ends = np.nonzero(turns == -1)[1]
    lines = zip(starts.tolist(), rows.tolist(), (ends - starts).tolist(), strict=True)
    return "".join(f"M{start} {row}h{length}" for start, row, length in lines)


def _legend(binned: bool) -> str:
    ramp = "".join(
        f'<span><i class="st-prune-cell st-prune-b{level}"></i>{name}</span>' for level, name in enumerate(NAMES, 1)
    )
    each = " A cell stands for a few channels in a layer this wide." if binned else ""
    return (
        '<div class="st-prune-legend"><span>What the next layer multiplies a channel by:</span>'
        f'<span><i class="st-prune-cell st-prune-b0"></i>dropped</span>{ramp}<span>{each}</span></div>'
    )


def _reasons(layers: tuple[Channels, ...]) -> str:
    """Return why some layers stay as they are, behind a line that opens."""
    reasons: dict[str, list[str]] = {}
    for layer in layers:
        if layer.state == "fixed":
            reasons.setdefault(layer.why or "it cannot change", []).append(layer.name)
    if not reasons:
        return ""
    items = "".join(f"<li><b>{say(', '.join(names))}</b>: {say(why)}</li>" for why, names in reasons.items())
    title = "Why some layers stay as they are"
    return f'<details class="st-prune-why"><summary>{title}</summary><ul>{items}</ul></details>'
