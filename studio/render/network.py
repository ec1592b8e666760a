"""A network that grows by splitting its neurons, as a picture one can ask: every neuron a point to choose.

Plain HTML that is complete without a script: each neuron is a radio button, and the chosen one shows its card. The
script beside this file adds the two sliders, the same on a page, in a notebook and in a page taken along.
"""

__all__ = ["KEEP_NETWORK", "SCRIPT", "network_html"]

import json
from pathlib import Path

import numpy as np

from studio.render.network_drawing import drawing
from studio.render.network_layout import (
    BUCKETS,
    Block,
    Layout,
    affordable,
    families,
    family_shares,
    laid_out,
    limit_of,
    pitch_of,
    tidy,
)
from studio.render.network_measures import curve_html, frame_data, number, say, spectra_html, splits_html
from studio.scenes import Layer, Network

TALL, MARGIN, HEAD = 320.0, 24.0, 42.0
# Above so many neurons only those with the most to gain can be chosen.
MOST = 480
FEW, NARROW, CLOSE, FAR = 7, 84.0, 56.0, 280.0
STYLE = f"<style>{Path(__file__).with_suffix('.css').read_text(encoding='utf-8')}</style>"
# Defines `studioNetwork(root)`: it wires the networks below an element and returns what to call when they changed.
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# Where the text is drawn anew while a run goes on, what was chosen and where the sliders stand is kept.
KEEP_NETWORK = f"{SCRIPT}\nwatch('value', studioNetwork(element));\n"


def network_html(scene: Network, group: str) -> str:
    """Return the network as a diagram, its spectra, its splits and the loss along eps.

    `group` tells the networks of one page apart. Where it was not scored yet there is the diagram alone.
    """
    scene = tidy(scene)
    layout = laid_out(scene, TALL, MARGIN, NARROW if len(scene.layers) < FEW else CLOSE, pitch_of(scene))
    picked = _picked(scene, scene.budget)
    asked = {"unit": scene.unit, "budget": scene.budget, "choices": _choices(scene, layout), "curve": frame_data(scene)}
    data = json.dumps({**asked, "approximate": scene.approximate}, allow_nan=False)
    parts = ""
    if scene.scored:
        measures = [part for part in (splits_html(scene), curve_html(scene)) if part]
        row = f'<div class="st-net-row">{"".join(measures)}</div>' if measures else ""
        parts = _budget(scene, picked) + row + spectra_html(scene)
    return (
        f'{STYLE}<section class="st-net" data-group="{say(group)}" data-net="{say(data)}"><h4>{say(scene.title)}</h4>'
        f'<p class="st-net-note">{_summary(scene)}</p>{_field(scene, layout, group, picked)}{_legend(scene)}{parts}'
        "</section>"
    )


def _summary(scene: Network) -> str:
    neurons = sum(len(layer.ids) for layer in scene.layers)
    start = f"Round {scene.round} · {neurons:,} neurons in {_count(len(scene.layers), 'layer')}"
    if not scene.scored:
        return f"{start} · not scored yet: the colours come with the first scoring."
    unstable = sum(int((layer.low < 0).sum()) for layer in scene.layers)
    words = f"{start} · {unstable:,} unstable, which a split can improve"
    if any((layer.shares < 0).any() for layer in scene.layers):
        most = max(family_shares(layer).max(initial=0.0) for layer in scene.layers)
        words += f" · copies of opposite sign: the largest family carries {number(float(most))} without signs"
    return words


def _field(scene: Network, layout: Layout, group: str, picked: list[tuple[int, int]]) -> str:
    """Return the diagram: what is drawn, and over it what can be chosen, with its cards below."""
    gaps = max(1, len(layout.blocks) - 1)
    single = all(block.width == 0 for block in layout.blocks)
    widest = layout.width + gaps * (FAR - layout.gap) if single else layout.width * (2.2 if layout.pitch > 15 else 1.6)
    chosen = _choosable(scene)
    cards = [_neurons(scene, index, layout, group, part) for index, part in enumerate(chosen)]
    few = sum(len(part) for part in chosen) < sum(len(layer.ids) for layer in scene.layers)
    hint = "Choose a neuron to see its numbers." + (
        " In a network this wide: those with the most to gain in each layer." if few else ""
    )
    names = "".join(_name(layer, block, layout) for layer, block in zip(scene.layers, layout.blocks, strict=True))
    title = say(scene.title)
    return (
        f'<div class="st-net-scroll"><div class="st-net-field" role="radiogroup" aria-label="{title}" '
        f'style="--wide:clamp({layout.width:.0f}px, 100cqw, {widest:.0f}px)">{names}{drawing(scene, layout, picked)}'
        f'{"".join(cards)}<div class="st-net-card st-net-hint">{hint}</div></div></div>'
    )


def _name(layer: Layer, block: Block, layout: Layout) -> str:
    """Return a layer's name and size above its column."""
    middle = (block.x + block.width / 2) / layout.width
    room = (block.width + layout.gap - 8) / layout.width
    return (
        f'<span class="st-net-name" style="--x:{middle:.4f};width:calc(var(--wide) * {room:.4f})" '
        f'title="{say(layer.name)}">'
        f"<b>{say(layer.name)}</b><br>{len(layer.ids):,}</span>"
    )


def _choosable(scene: Network) -> list[list[int]]:
    """Return which neurons of each layer can be chosen: all, or in a large network those with the most to gain."""
    if sum(len(layer.ids) for layer in scene.layers) <= MOST:
        return [list(range(len(layer.ids))) for layer in scene.layers]
    each = max(1, MOST // len(scene.layers))
    return [np.lexsort((layer.born != scene.round, layer.gains))[:each].tolist() for layer in scene.layers]


def _neurons(scene: Network, index: int, layout: Layout, group: str, chosen: list[int]) -> str:
    """Return a radio button and a card for each neuron of a layer that can be chosen, in the order of the diagram."""
    layer, block = scene.layers[index], layout.blocks[index]
    places = block.places()
    first, totals = families(layer), family_shares(layer)
    sizes = np.bincount(first, minlength=len(first))
    wanted, found = set(chosen), []
    for place in block.order.tolist():
        if place not in wanted:
            continue
        across, top = places[place, 0] / layout.width, HEAD + places[place, 1]
        kind = ' class="st-net-minus"' if layer.shares[place] < 0 else ""
        head = f"{layer.name}, neuron {layer.ids[place]}"
        told = f"{head}, splitting index {number(float(layer.low[place]))}" if scene.scored else head
        family = (int(sizes[first[place]]), float(totals[place]))
        found.append(
            f'<input type="radio" name="neuron-{say(group)}" value="{index}-{layer.ids[place]}"{kind} '
            f'style="--x:{across:.4f};top:{top:.1f}px;--d:{layout.size:.1f}px" aria-label="{say(told)}">'
            f'<div class="st-net-card"><p><b>{say(layer.name)} · neuron {layer.ids[place]}</b> '
            f"{_origin(scene, layer, place, family)}</p>{_numbers(scene, layer, place)}</div>"
        )
    return "".join(found)


def _origin(scene: Network, layer: Layer, place: int, family: tuple[int, float]) -> str:
    parent, born, share = int(layer.parents[place]), int(layer.born[place]), float(layer.shares[place])
    came = f"split off neuron {parent} in round {born}" if parent >= 0 else "there from the start"
    if parent < 0 and born:
        came = f"added in round {born}"
    new = ", the last one" if born and born == scene.round else ""
    if parent < 0 and family[0] == 1 and share == 1:
        return f"{came}{new}."
    whole = f"; the shares of its family of {family[0]} add up to {number(family[1])} without signs"
    more = (", a negative copy" if share < 0 else "") + (whole if family[0] > 1 else "")
    return f"{came}{new}; it carries {number(share)} of its first ancestor’s output{more}."


def _numbers(scene: Network, layer: Layer, place: int) -> str:
    """Return what the scoring said of one neuron, as sentences."""
    if not scene.scored:
        return ""
    low, high, gain = float(layer.low[place]), float(layer.high[place]), float(layer.gains[place])
    calm = "stable, but not under signed copies" if gain < 0 else "stable"
    state = "unstable, a split can lower the loss" if low < 0 else calm
    best = (
        f"Best split: {say(layer.schemes[place] or 'unnamed')}, predicted change {number(gain)} × eps², "
        f"cost {number(float(layer.costs[place]))} {say(scene.unit)}."
        if gain < 0
        else "No split of it promises to lower the loss."
    )
    return f"<p>Eigenvalues {number(low)} to {number(high)}: {state}. {best}</p>"


def _legend(scene: Network) -> str:
    """Return what the colours and the rings mean."""
    end = number(limit_of(scene))
    scale = (
        f'<span>splitting index −{end}<i class="st-net-scale" style="background:linear-gradient(90deg,'
        f'{",".join(BUCKETS)})"></i>{end}</span>'
    )
    fresh = any((layer.born == scene.round).any() for layer in scene.layers) if scene.round else False
    negative = any((layer.shares < 0).any() for layer in scene.layers)
    kinds = [
        scale if scene.scored and limit_of(scene) else "",
        f'<span><i class="st-net-dot st-net-fresh"></i>new in round {scene.round}</span>' if fresh else "",
        '<span><i class="st-net-dot st-net-hollow"></i>negative share</span>' if negative else "",
        '<span><i class="st-net-dot st-net-pick"></i>split at the budget below</span>' if scene.scored else "",
    ]
    return f'<div class="st-net-legend">{"".join(kinds)}</div>' if any(kinds) else ""


def _picked(scene: Network, budget: float) -> list[tuple[int, int]]:
    """Return the layer and the place of the neurons whose splits a budget pays."""
    if not scene.scored:
        return []
    spots = [(index, place) for index, layer in enumerate(scene.layers) for place in range(len(layer.ids))]
    gains = [float(scene.layers[index].gains[place]) for index, place in spots]
    costs = [float(scene.layers[index].costs[place]) for index, place in spots]
    return [spots[spot] for spot in affordable(gains, costs, budget)]


def _choices(scene: Network, layout: Layout) -> list[list[float]]:
    """Return the place, the gain and the cost of every neuron that promises something, for the script."""
    found = []
    for layer, block in zip(scene.layers if scene.scored else (), layout.blocks, strict=False):
        places = block.places()
        for place in np.flatnonzero(layer.gains < 0).tolist():
            x, y = places[place].round(1).tolist()
            found.append([x, y, float(f"{layer.gains[place]:.6g}"), float(f"{layer.costs[place]:.9g}")])
    return found


def _budget(scene: Network, picked: list[tuple[int, int]]) -> str:
    """Return in words what the round's budget pays, and the slider that asks for another one."""
    gain = sum(float(scene.layers[index].gains[place]) for index, place in picked)
    cost = sum(float(scene.layers[index].costs[place]) for index, place in picked)
    words = (
        f"A budget of {number(scene.budget)} {scene.unit} pays {_count(len(picked), 'neuron')}: "
        f"cost {number(cost)} {scene.unit}, predicted change {number(gain)} × eps²."
    )
    if not any((layer.gains < 0).any() for layer in scene.layers):
        words = "No neuron promises to lower the loss by a split."
    return (
        '<div class="st-net-part st-net-buy"><h5>What a budget pays</h5><label class="st-net-slide st-net-quiet">budget'
        '<input type="range" class="st-net-budget" min="0" max="200"></label>'
        f'<p class="st-net-words st-net-budget-words">{say(words)}</p></div>'
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
