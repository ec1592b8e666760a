"""A network that is pruned by greedy imitation, as a picture one can ask: its layers, its newest path, its decay.

Plain HTML that is complete without a script, which shows the last moment and the most calibration values. The script
beside this file adds the sliders, the same on a page, in a notebook and in a page taken along.
"""

__all__ = ["KEEP_PRUNING", "SCRIPT", "pruning_html"]

import json
import math
from pathlib import Path

from studio.render.network_measures import counted, number, say
from studio.render.pruning_decay import decay_data, decay_html
from studio.render.pruning_imitation import imitation_data, imitation_html
from studio.render.pruning_layers import layers_html
from studio.scenes import Pruning

MILLION, THOUSAND = 1e6, 1e4
STYLE = f"<style>{Path(__file__).with_suffix('.css').read_text(encoding='utf-8')}</style>"
# Defines `studioPruning(root)`: it wires the networks below an element and returns what to call when they changed.
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# Where the text is drawn anew while a run goes on, where the sliders stand and what was chosen is kept.
KEEP_PRUNING = f"{SCRIPT}\nwatch('value', studioPruning(element));\n"


def pruning_html(scene: Pruning, group: str) -> str:
    """Return the layers with what is kept of them, how the newest one was imitated, and how fast the error falls.

    `group` tells the networks of one page apart.
    """
    data = json.dumps(
        {"path": imitation_data(scene.imitation), "decay": decay_data(scene.decays)},
        allow_nan=False, separators=(",", ":"),
    )  # fmt: skip
    path = "" if scene.imitation is None else imitation_html(scene.imitation, group)
    return (
        f'{STYLE}<section class="st-prune" data-group="{say(group)}" data-prune="{say(data)}">'
        f'<h4>{say(scene.title)}</h4><p class="st-prune-note">{_summary(scene)}</p>{_cost(scene)}'
        f"{layers_html(scene.layers)}{path}{decay_html(scene.decays)}</section>"
    )


def _summary(scene: Pruning) -> str:
    """Return how many layers are done and how many channels are kept, in words."""
    states = [layer.state for layer in scene.layers]
    fixed = states.count("fixed")
    kept = sum(int((layer.weights > 0).sum()) for layer in scene.layers)
    whole = sum(len(layer.weights) for layer in scene.layers)
    words = f"{states.count('done')} of {counted(len(states) - fixed, 'layer')} done"
    if fixed:
        words += f", {fixed} more {'stays as it is' if fixed == 1 else 'stay as they are'}"
    return f"{words} · {kept:,} of {counted(whole, 'channel')} kept"


def _cost(scene: Pruning) -> str:
    """Return the multiply-accumulates before and now, in words and as a bar; nothing where they are not known."""
    before, now = scene.macs
    if not (math.isfinite(before) and math.isfinite(now) and before > 0):
        return ""
    share = 100 * max(0.0, now / before)
    left = f"{share:.0f} %" if share >= 10 or not share else f"{share:.2g} %"
    words = f"{_large(before)} multiply-accumulates before, {_large(now)} now: {left} of them are left"
    bar = f'<i style="width:{min(share, 100):.1f}%"></i>'
    meter = f'<span class="st-prune-meter" aria-hidden="true">{bar}</span>'
    return f'<p class="st-prune-cost">{meter}<span>{words}</span></p>'


def _large(value: float) -> str:
    """Return a count as people write it: 1.4 million."""
    if value >= 1000 * MILLION:
        return f"{number(value / (1000 * MILLION))} billion"
    if value >= MILLION:
        return f"{number(value / MILLION)} million"
    return f"{value:,.0f}" if value < THOUSAND else f"{float(f'{value:.3g}'):,.0f}"
