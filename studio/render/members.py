"""The trade-off picture: every member of a population as a point one can choose, by mouse or by arrow keys.

Plain HTML without a script: each point is a radio button, and the chosen one shows its card. A page and a notebook
show the same text.
"""

__all__ = ["KEEP_CHOICE", "members_html"]

import base64
import html
import math
from pathlib import Path

import numpy as np

from studio.files.archive import png_bytes
from studio.render.raster import enlarge
from studio.scenes import Members

TICKS = 4
THUMB = 96
# Where the text is drawn anew while a run goes on, the member chosen before stays chosen.
KEEP_CHOICE = """
let chosen = null;
element.addEventListener('change', event => { chosen = event.target.value; });
watch('value', () => {
  const old = chosen === null ? null : element.querySelector(`.st-field > input[value="${chosen}"]`);
  if (old) old.checked = true;
});
"""
STYLE = f"<style>{Path(__file__).with_name('members.css').read_text(encoding='utf-8')}</style>"


def members_html(scene: Members, group: str, plain: Members | None = None) -> str:
    """Return the members as points: loss to the right, distance to the nearest other one upwards.

    `group` tells the pictures of one page apart; the members of `plain`, the baseline, stand beside them in grey.
    """
    others = () if plain is None else (plain,)
    across, x_ticks = _axis(np.concatenate([scene.losses, *(o.losses for o in others)]), scene.log_loss)
    up, y_ticks = _axis(np.concatenate([scene.distances, *(o.distances for o in others)]), False)
    marks = [f'<span class="st-x" style="left:{100 * at:.1f}%">{text}</span>' for at, text in x_ticks]
    marks += [f'<span class="st-y" style="bottom:{100 * at:.1f}%">{text}</span>' for at, text in y_ticks]
    places = [f"left:{100 * x:.2f}%;bottom:{100 * y:.2f}%" for x, y in zip(across, up, strict=True)]
    n = len(scene.losses)
    points = _points(scene, group, places[:n], "") + [
        mark for other in others for mark in _points(other, group, places[n:], "plain")
    ]
    title = html.escape(scene.title, quote=True)
    names = (
        f'<span class="st-x-name">{html.escape(scene.loss_label)} &rarr;</span>'
        f'<span class="st-y-name">&uarr; {html.escape(scene.distance_label)}</span>'
    )
    hint = "Left is good, high is different. Choose a member to see it." + (" Grey: the plain run." if plain else "")
    return (
        f'{STYLE}<div class="st-trade"><h4>{title}</h4><div class="st-field" role="radiogroup" aria-label="{title}">'
        f'{"".join(marks)}{names}{"".join(points)}<div class="st-hint">{hint}</div></div></div>'
    )


def _points(scene: Members, group: str, places: list[str], kind: str) -> list[str]:
    found = []
    for index, (caption, place) in enumerate(zip(scene.captions, places, strict=True)):
        words = html.escape(f"{kind}: {caption}" if kind else caption, quote=True)
        picture = "" if scene.pixels is None else _thumb(scene.pixels[index])
        found.append(
            f'<input type="radio" name="member-{group}" value="{kind}{index}" class="st-{kind}" style="{place}" '
            f'aria-label="{words}" title="{words}"><div class="st-card">{picture}<span>{words}</span></div>'
        )
    return found


def _axis(values: np.ndarray, log: bool) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return each value's place between 0 and 1 and the ticks as places with their text."""
    scaled = np.log10(np.maximum(values, 1e-32)) if log else values.astype(float)
    low, high = float(scaled.min()), float(scaled.max())
    step = _nice((high - low) / TICKS, whole=log)
    first, final = math.floor(low / step), math.ceil(high / step)
    if first == final:
        first, final = first - 1, final + 1
    low, high = first * step, final * step
    ticks = [(index * step - low) / (high - low) for index in range(first, final + 1)]
    text = [_number(index * step, log, step) for index in range(first, final + 1)]
    return (scaled - low) / (high - low), list(zip(ticks, text, strict=True))


def _nice(width: float, whole: bool) -> float:
    """Return a step of 1, 2 or 5 times a power of ten that is at least `width` (at least 1 where `whole`)."""
    if not width > 1e-12:
        return 1.0 if whole else 0.01
    power = 10.0 ** math.floor(math.log10(width))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9))
    return max(math.ceil(step), 1.0) if whole else step


def _number(value: float, log: bool, step: float) -> str:
    if log:
        return f"10<sup>{value:.0f}</sup>"
    return f"{value:.{max(0, -math.floor(math.log10(step)))}f}"


def _thumb(pixels: np.ndarray) -> str:
    data = base64.b64encode(png_bytes(enlarge(pixels, THUMB))).decode()
    return f'<img src="data:image/png;base64,{data}" alt="">'
