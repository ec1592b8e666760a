"""How fast the error falls with the channels kept, as HTML: a line a rule, and two fits of the first."""

__all__ = ["decay_data", "decay_html"]

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float

from studio.render.charts import PALETTE
from studio.render.network_measures import POWERS, say
from studio.render.pruning_fits import FITS, crossing_html, fit_words, marks, places_of, r2
from studio.render.pruning_imitation import FLOOR, plain
from studio.render.pruning_plane import HUGE
from studio.scenes import Decay

# So many lines have a colour of their own, so many decays a place on the slider, so many points a line.
LINES, MOST, POINTS = len(PALETTE), 12, 48
SIDE = 1000


@dataclass(frozen=True)
class Frame:
    """One drawing: the lines of the rules and of the fits as paths, ticks as places in percent with their text."""

    lines: tuple[str, ...]
    fits: tuple[str, ...]
    x: tuple[tuple[float, str], ...]
    y: tuple[tuple[float, str], ...]
    words: str


@dataclass(frozen=True)
class Axes:
    """The ends of both axes, the error's as powers of ten; `log` makes channels logarithmic, too."""

    left: float
    right: float
    bottom: float
    top: float
    log: bool

    def across(self, kept: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Return how far to the right a number of channels is, from 0 to 1."""
        part = np.log(kept / self.left) / math.log(self.right / self.left) if self.log else kept / self.right
        return np.asarray(part, dtype=np.float64)

    def down(self, depths: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Return how far down a power of ten is, from 0 to 1."""
        return (self.top - depths) / (self.top - self.bottom)


def decay_html(decays: tuple[Decay, ...]) -> str:
    """Return the errors of the last decay with both fits, and beside it how the fits change with the dimension."""
    decays = _shown(decays)
    if not decays:
        return ""
    rules = _rules(decays)
    frame = _frame(decays[-1], rules, log=False)
    slider = (
        '<label class="st-prune-slide st-prune-quiet"><span class="st-prune-points"></span><input type="range" '
        f'class="st-prune-decay" min="0" max="{len(decays) - 1}" value="{len(decays) - 1}"></label>'
    )
    toggle = (
        '<label class="st-prune-quiet st-prune-check"><input type="checkbox" class="st-prune-log">'
        "logarithmic axis of the channels</label>"
    )
    words = f'<p class="st-prune-words st-prune-decay-words">{say(frame.words)}</p>'
    few = len(decays) < 2
    main = (
        f"{_legend(decays[-1], rules)}{_chart(frame)}"
        f'<div class="st-prune-asks">{"" if few else slider}{toggle}</div>{words}'
    )
    return (
        '<div class="st-prune-part"><h5>How fast the error falls</h5><p class="st-prune-note st-prune-told">The error '
        "against the channels kept. The fewer calibration values, the fewer dimensions the contributions span (the "
        "effective dimension), and the sooner a few of them balance out.</p>"
        f'<div class="st-prune-two"><div>{main}</div><div>{"" if few else crossing_html(decays)}</div></div></div>'
    )


def _shown(decays: tuple[Decay, ...]) -> tuple[Decay, ...]:
    """Return the decays that can be drawn, the first and the last and evenly some of those between."""
    able = tuple(decay for decay in decays if any(_able(*line).any() for line in _lines(decay)))
    chosen = np.unique(np.linspace(0, max(0, len(able) - 1), min(len(able), MOST)).round().astype(int))
    return tuple(able[index] for index in chosen.tolist())


def _lines(decay: Decay) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(decay.kept, decay.errors, strict=True))[:LINES]


def _able(kept: np.ndarray, errors: np.ndarray) -> Bool[np.ndarray, " k"]:
    return (kept > 0) & np.isfinite(errors) & (errors >= 0) & (errors < HUGE)


def _rules(decays: tuple[Decay, ...]) -> tuple[str, ...]:
    """Return the names of all lines, in the order they first come."""
    return tuple(dict.fromkeys(name for decay in decays for name in decay.rules[:LINES]))[:LINES]


def _frame(decay: Decay, rules: tuple[str, ...], log: bool) -> Frame:
    found = {name: line for name, line in zip(decay.rules, map(_clean, _lines(decay)), strict=False) if len(line)}
    every = np.concatenate(list(found.values()))
    axes = _axes(every, log)
    return Frame(
        tuple(_path(_thin(found[name]), axes) if name in found else "" for name in rules),
        tuple(_path(line, axes) for line in _fits(decay, axes)),
        _x_ticks(axes),
        _y_ticks(axes),
        fit_words(decay, log),
    )


def _clean(line: tuple[np.ndarray, np.ndarray]) -> Float[np.ndarray, "k 2"]:
    """Return the channels kept beside the errors as powers of ten, those that are no number left out."""
    kept, errors = (part.astype(np.float64) for part in line)
    able = _able(kept, errors)
    return np.stack([kept[able], np.log10(np.maximum(errors[able], FLOOR))], axis=1)


def _axes(every: Float[np.ndarray, "k 2"], log: bool) -> Axes:
    """Return axes that hold all points but those where nothing is left except rounding."""
    depths = every[:, 1][every[:, 1] > math.log10(FLOOR)] if every[:, 1].max() > math.log10(FLOOR) else every[:, 1]
    low, high = float(depths.min()), float(depths.max())
    bottom, top = math.floor(low * 2 + 1e-9) / 2, math.ceil(high * 2 - 1e-9) / 2
    return Axes(1.0, max(2.0, float(every[:, 0].max())), min(bottom, top - 1.0), top, log)


def _thin(line: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "j 2"]:
    """Return at most about twice `POINTS` of the points, dense on either axis."""
    if len(line) <= POINTS:
        return line
    ends = (np.linspace(1, len(line), POINTS), np.geomspace(1, len(line), POINTS))
    return line[np.unique(np.concatenate(ends).round().astype(int)) - 1]


def _path(line: Float[np.ndarray, "k 2"], axes: Axes) -> str:
    if not len(line):
        return ""
    places = SIDE * np.stack([axes.across(line[:, 0]), axes.down(line[:, 1])], axis=1)
    points = "L".join(f"{x:.0f} {y:.0f}" for x, y in places.clip(-SIDE, 2 * SIDE))
    return f"M{points}{'h0' if len(line) == 1 else ''}"


def _fits(decay: Decay, axes: Axes) -> tuple[Float[np.ndarray, "k 2"], ...]:
    """Return the exponential and the power fit of the first rule, through the middle of its points; within the axes."""
    line = _clean(_lines(decay)[0]) if decay.kept else np.zeros((0, 2))
    line = line[line[:, 1] > math.log10(FLOOR)]
    ways: tuple[tuple[float, Callable[[np.ndarray], np.ndarray]], ...] = (
        (decay.exp_rate, lambda kept: kept / math.log(10)), (decay.power, np.log10),
    )  # fmt: skip
    found = []
    for slope, along in ways:
        kept = np.geomspace(1, axes.right, POINTS)
        if not math.isfinite(slope) or len(line) < 2 or abs(slope) > HUGE:
            found.append(np.zeros((0, 2)))
            continue
        middle = float((line[:, 1] + slope * along(line[:, 0])).mean())
        depths = middle - slope * along(kept)
        room = (axes.top - axes.bottom) / 2
        inside = (depths > axes.bottom - room) & (depths < axes.top + room)
        found.append(np.stack([kept, depths], axis=1)[inside])
    return tuple(found)


def _x_ticks(axes: Axes) -> tuple[tuple[float, str], ...]:
    if axes.log:
        steps = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
        inside = [step for step in steps if step <= axes.right]
        inside = inside if len(inside) <= 7 else [step for step in inside if str(step)[0] == "1"]
    else:
        rough = axes.right / 5
        size = 10 ** math.floor(math.log10(rough))
        step = max(1, int(next(digit * size for digit in (1, 2, 5, 10) if digit * size >= rough)))
        inside = list(range(0, int(axes.right) + 1, step))
    places = axes.across(np.array(inside, dtype=np.float64)) if inside else np.zeros(0)
    return tuple((round(100 * at, 2), f"{step:,}") for at, step in zip(places.tolist(), inside, strict=True))


def _y_ticks(axes: Axes) -> tuple[tuple[float, str], ...]:
    first, last = math.ceil(axes.bottom), math.floor(axes.top)
    every = max(1, math.ceil((last - first) / 5))
    powers = [power for power in range(last, first - 1, -1) if power % every == 0] or [last]
    places = axes.down(np.array(powers, dtype=np.float64)).tolist()
    return tuple((round(100 * at, 2), _power(power)) for at, power in zip(places, powers, strict=True))


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"10{str(power).translate(POWERS)}"


def _legend(decay: Decay, rules: tuple[str, ...]) -> str:
    lines = (f'<i class="st-prune-way st-prune-c{index}"></i>{say(plain(name))}' for index, name in enumerate(rules))
    names = "".join(f"<span>{line}</span>" for line in lines)
    first = f" of {say(plain(decay.rules[0]))}" if len(rules) > 1 and decay.rules else ""
    fits = "".join(
        f'<span><i class="st-prune-way st-prune-fit{index}"></i>{name}{first}, R² <b class="st-prune-r{index}">'
        f"{r2(value)}</b></span>"
        for index, (name, value) in enumerate(zip(FITS, (decay.exp_r2, decay.power_r2), strict=True))
    )
    return f'<div class="st-prune-legend">{names}{fits}</div>'


def _chart(frame: Frame) -> str:
    lines = "".join(f'<path class="st-prune-c{index}" d="{line}"/>' for index, line in enumerate(frame.lines))
    fits = "".join(f'<path class="st-prune-fit{index}" d="{line}"/>' for index, line in enumerate(frame.fits))
    return (
        '<div class="st-prune-chart st-prune-large"><div class="st-prune-y">'
        f'{marks(frame.y, "top")}</div><svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" '
        f'aria-label="error against channels kept: {say(frame.words)}">{lines}{fits}</svg>'
        f'<div class="st-prune-x">{marks(frame.x, "left")}</div><small>error</small><small>channels kept</small></div>'
    )


def decay_data(decays: tuple[Decay, ...]) -> dict[str, object]:
    """Return what a script needs to draw any decay on either axis; nothing where there is none."""
    decays = _shown(decays)
    if not decays:
        return {}
    rules = _rules(decays)
    return {
        "frames": [[asdict(_frame(decay, rules, log)) for log in (False, True)] for decay in decays],
        "r2": [[r2(decay.exp_r2), r2(decay.power_r2)] for decay in decays],
        "names": [f"calibration values {decay.points:,} · effective dimension {decay.dimension:,}" for decay in decays],
        "at": [round(x, 1) for x in places_of(decays)],
    }
