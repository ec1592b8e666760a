"""What goes into a growing network and what comes out of it: two boxes, and the lines or the bands to them."""

__all__ = ["HALF", "INWARD", "PENS", "band", "ends_drawing", "ends_html", "fans", "pens"]
import numpy as np
from jaxtyping import Float, Int

from studio.render.network_layout import WEAKEST, Block, Layout
from studio.render.network_measures import say
from studio.scenes import Network

# How wide the lines to the output are, from weak to strong, and how dark those from the input.
PENS = (0.8, 1.8, 3.0, 4.4)
INWARD = 0.2
# So many lines at most lead to a box; a band stands for more.
FAN = 48
# What a neuron adds to a single output, and what it takes away: told apart by colour and by dashes.
KINDS = {1: "st-net-adds", -1: "st-net-takes", 0: "st-net-reads"}
HALF = 10.0


def ends_html(scene: Network, layout: Layout, head: float) -> str:
    """Return the two boxes with their words, `head` below the top."""
    words = (scene.inputs or "input", scene.outputs or "output")
    return "".join(
        f'<span class="st-net-end" style="--x:{x / layout.width:.4f};top:{head + y:.1f}px" title="{say(told)}">'
        f"<span>{say(told)}</span></span>"
        for told, (x, y) in zip(words, layout.ends, strict=True)
    )


def ends_drawing(scene: Network, layout: Layout, places: list[np.ndarray]) -> str:
    """Return what leads from the input to the first layer and from the last one to the output, as SVG."""
    if not places:
        return ""
    (x, y), (u, v) = layout.ends
    first, last = layout.blocks[0], layout.blocks[-1]
    into = band(x, y - HALF, y + HALF, *first.edge(-1)) if len(places[0]) else ""
    out = band(*last.edge(1), u, v - HALF, v + HALF) if len(places[-1]) else ""
    if fans(first):
        line = "".join(f"M{x:.1f} {y:.1f}L{to:.1f} {down:.1f}" for to, down in places[0])
        into = f'<path class="st-net-link" stroke-opacity="{INWARD}" d="{line}"/>'
    if fans(last) and len(scene.reads):
        out = _reads(scene, places[-1], (u, v))
    return into + out


def fans(block: Block) -> bool:
    """Return whether single lines lead from a layer to a box; else a band does."""
    return not block.width and 0 < len(block.order) <= FAN


def pens(reads: Float[np.ndarray, "o n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return how strongly each neuron is read, as a place in `PENS` (-1: hardly), and with which sign.

    That is its weight for a single output; for more it is the root of the sum of their squares, without a sign (0).
    """
    sizes = np.sqrt(np.square(reads).sum(axis=0))
    shares = sizes / (sizes.max(initial=0.0) or 1.0)
    places = np.minimum((shares * len(PENS)).astype(np.int64), len(PENS) - 1)
    signs = np.sign(reads[0]) if len(reads) == 1 else np.zeros(len(sizes))
    return np.where(shares > WEAKEST, places, -1), signs.astype(np.int64)


def _reads(scene: Network, at: np.ndarray, end: tuple[float, float]) -> str:
    """Return the lines to the output, as wide as it reads the neurons strongly, a path for each sign and width."""
    lines: dict[tuple[int, int], str] = {}
    for (x, y), pen, sign in zip(at, *(part.tolist() for part in pens(scene.reads)), strict=True):
        if pen >= 0:
            lines[sign, pen] = lines.get((sign, pen), "") + f"M{x:.1f} {y:.1f}L{end[0]:.1f} {end[1]:.1f}"
    return "".join(
        f'<path class="{KINDS[sign]}" stroke-width="{PENS[pen]:g}" d="{line}"/>'
        for (sign, pen), line in sorted(lines.items())
    )


def band(x: float, top: float, foot: float, u: float, high: float, deep: float) -> str:
    """Return a band from an edge at x, from `top` to `foot`, to another one at u, from `high` to `deep`."""
    middle = (x + u) / 2
    return (
        f'<path class="st-net-band" d="M{x:.1f} {top:.1f}C{middle:.1f} {top:.1f} {middle:.1f} {high:.1f} {u:.1f} '
        f"{high:.1f}V{deep:.1f}C{middle:.1f} {deep:.1f} {middle:.1f} {foot:.1f} {x:.1f} {foot:.1f}Z"
        '"/>'
    )
