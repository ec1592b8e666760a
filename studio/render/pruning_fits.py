"""Which fit of a decay is straight, and how that changes with the dimension: in words, a chart and a table."""

__all__ = ["FITS", "crossing_html", "fit_words", "marks", "places_of", "r2", "story"]

import math
from collections.abc import Sequence

from studio.render.network_measures import counted, number
from studio.scenes import Decay

# Fits nearer to each other than this are called equally good; below GOOD none is called good.
TIE, GOOD = 0.005, 0.95
FITS = ("exponential", "power law")


def fit_words(decay: Decay, log: bool) -> str:
    """Return which of the two fits is better and which is straight on this axis, in words."""
    fits = ((FITS[0], decay.exp_r2), (FITS[1], decay.power_r2))
    (name, own), (other, its) = fits[::-1] if log else fits
    axis = f"Straight on this axis: {name}, R² {r2(own)}; {other} {r2(its)}"
    if not (math.isfinite(decay.exp_r2) and math.isfinite(decay.power_r2)):
        return f"Effective dimension {decay.dimension:,}: too few points to tell an exponential from a power law."
    winner = _better(decay)
    said = "both fit equally well" if winner < 0 else f"the {FITS[winner]} fits better"
    if max(decay.exp_r2, decay.power_r2) < GOOD:
        said += ", though neither is good"
    switch = f": it is straight on the {'linear' if log else 'logarithmic'} axis" if winner == (0 if log else 1) else ""
    return f"{axis}. At effective dimension {decay.dimension:,} {said}{switch}."


def _better(decay: Decay) -> int:
    """Return 0 where the exponential fits better, 1 where the power law does, -1 where they are equal or unknown."""
    lead = decay.exp_r2 - decay.power_r2
    return -1 if not math.isfinite(lead) or abs(lead) < TIE else int(lead < 0)


def r2(value: float) -> str:
    """Return an R² with three digits, rounded down: 1 means a perfect fit."""
    return f"{math.floor(1000 * value) / 1000:.3f}".replace("-", "−") if math.isfinite(value) else "unknown"


def crossing_html(decays: tuple[Decay, ...]) -> str:
    """Return how well both fits do against the effective dimension, as a chart, in words and as a table."""
    known = [each for each in (decay.exp_r2 for decay in decays) if math.isfinite(each)]
    known += [each for each in (decay.power_r2 for decay in decays) if math.isfinite(each)]
    if not known:
        return ""
    low = min(0.9, math.floor(10 * max(0.0, min(known))) / 10)
    at = places_of(decays)
    lines, dots = "", ""
    for index, name in enumerate(("exp_r2", "power_r2")):
        pairs = zip(at, (getattr(decay, name) for decay in decays), strict=True)
        places = [(x, 100 * min(1.0, (1 - y) / (1 - low))) for x, y in pairs if math.isfinite(y)]
        line = "L".join(f"{10 * x:.0f} {10 * y:.0f}" for x, y in places)
        lines += f'<path class="st-prune-fit{index}" d="{line and "M" + line}"/>'
        dots += "".join(f'<i class="st-prune-d{index}" style="left:{x:.1f}%;top:{y:.1f}%"></i>' for x, y in places)
    noun, values = _along(decays)
    below = marks([(round(x, 1), f"{value:,}") for x, value in zip(at, values, strict=True)], "left")
    keys = (f'<i class="st-prune-way st-prune-fit{index}"></i>{name}' for index, name in enumerate(FITS))
    key = "".join(f"<span>{each}</span>" for each in keys)
    return (
        f'<div class="st-prune-legend"><span>How well each fits, R²:</span>{key}</div><div class="st-prune-chart">'
        f'<div class="st-prune-y">{marks([(0, "1"), (100, f"{low:.1f}")], "top")}</div>'
        '<div class="st-prune-field"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="R² of both fits against the {noun}">{lines}</svg>{dots}'
        f'<i class="st-prune-here" style="left:{at[-1]:.1f}%"></i></div>'
        f'<div class="st-prune-x">{below}</div><small>R²</small><small>{noun}</small></div>'
        f'<p class="st-prune-words">{story(decays)}</p>{_table(decays)}'
    )


def places_of(decays: tuple[Decay, ...]) -> list[float]:
    """Return a place a decay, in percent, evenly: dimensions that grow by doubling then stand far enough apart."""
    return [4 + 92 * index / max(1, len(decays) - 1) for index in range(len(decays))]


def marks(ticks: Sequence[tuple[float, str]], side: str) -> str:
    """Return texts at places in percent, counted from a side."""
    return "".join(f'<span style="{side}:{at:g}%">{text}</span>' for at, text in ticks)


def _along(decays: tuple[Decay, ...]) -> tuple[str, list[int]]:
    """Return what tells decays apart and its values: the dimension, or the calibration values where it stands still."""
    dimensions = [decay.dimension for decay in decays]
    if len(set(dimensions)) == len(dimensions):
        return "effective dimensions", dimensions
    return "calibration values", [decay.points for decay in decays]


def story(decays: tuple[Decay, ...]) -> str:
    """Return how the better fit changes from few calibration values to many, in words."""
    noun, values = _along(decays)
    told = [(value, _better(decay)) for value, decay in zip(values, decays, strict=True) if _better(decay) >= 0]
    if not told:
        return "Neither fit is clearly better at any number of calibration values tried."
    winners = [winner for _, winner in told]
    if len(set(winners)) == 1:
        return (
            f"Wherever the two differ, from {values[0]:,} to {values[-1]:,} {noun}, the {FITS[winners[0]]} fits better."
        )
    if winners == sorted(winners):
        turn = winners.index(1)
        return (
            f"Up to {told[turn - 1][0]:,} {noun} the exponential fits better, from {told[turn][0]:,} on the power law: "
            "an exponential decay is seen where the channels by far outnumber the dimensions."
        )
    parts = ", ".join(f"{FITS[winner]} at {value:,}" for value, winner in told)
    return f"Which fits better goes to and fro with the {noun}: {parts}."


def _table(decays: tuple[Decay, ...]) -> str:
    rows = "".join(
        f"<tr><td>{decay.points:,}</td><td>{decay.dimension:,}</td><td>{number(decay.exp_rate)}</td>"
        f"<td>{r2(decay.exp_r2)}</td><td>{number(decay.power)}</td><td>{r2(decay.power_r2)}</td></tr>"
        for decay in decays
    )
    heads = ("calibration values", "effective dimension", "rate c of exp(−c n)", "its R²", "power p of n⁻ᵖ", "its R²")
    headings = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        f'<details class="st-prune-why"><summary>The {counted(len(decays), "fit")} as a table</summary>'
        '<div class="st-prune-scroll" tabindex="0" role="region" aria-label="the fits as a table"><table><thead><tr>'
        f"{headings}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
