"""Knobs: the fields of a study read once into controls, from which every surface is built."""

__all__ = [
    "Choice",
    "Control",
    "Knob",
    "Range",
    "Value",
    "Words",
    "check",
    "clamp",
    "controls",
    "from_query",
    "knobs",
    "to_query",
]

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, urlencode

T = TypeVar("T")
Value = int | float | str | bool


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included; `log` asks for a slider in orders of magnitude."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """The names a text may take."""

    options: tuple[str, ...]

    def __init__(self, *options: str) -> None:
        object.__setattr__(self, "options", options)


@dataclass(frozen=True)
class Words:
    """Free text of at most `limit` characters; `examples` are offered to click, under `names` where they have any."""

    limit: int = 500
    examples: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Knob:
    """How a field is shown: a label, one sentence of help, and whether it hides among the advanced ones."""

    label: str
    help: str = ""
    advanced: bool = False


@dataclass(frozen=True)
class Control:
    """One field of a study as a surface needs it."""

    name: str
    kind: type
    default: Value
    bound: Range | Choice | Words | None
    knob: Knob


def controls(study: type) -> tuple[Control, ...]:
    """Return the controls of a study class in the order of its fields."""
    hints = get_type_hints(study, include_extras=True)
    found = []
    for field in fields(study):
        hint = hints[field.name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        kind = get_args(hint)[0] if marks else hint
        bound = next((mark for mark in marks if isinstance(mark, Range | Choice | Words)), None)
        knob = next((mark for mark in marks if isinstance(mark, Knob)), Knob(field.name.replace("_", " ")))
        found.append(Control(field.name, kind, field.default, bound, knob))  # type: ignore[arg-type]
    return tuple(found)


def check(study: object) -> None:
    """Raise a `ValueError` naming the first field of a study that is out of its bounds."""
    for control in controls(type(study)):
        problem = _fault(control, getattr(study, control.name))
        if problem:
            raise ValueError(problem)


def clamp(study: type[T], values: Mapping[str, object]) -> T:
    """Build a study from untrusted values: unknown names are ignored, numbers clamped, the rest left default."""
    known = {}
    for control in controls(study):
        if control.name in values:
            value = _tamed(control, values[control.name])
            if value is not None and not _fault(control, value):
                known[control.name] = value
    return study(**known)


def knobs(study: object) -> dict[str, Value]:
    """Return the value of every knob of a study by name."""
    return {control.name: getattr(study, control.name) for control in controls(type(study))}


def to_query(study: object) -> str:
    """Return the knobs that differ from their defaults as a URL query."""
    pairs = [(c.name, getattr(study, c.name)) for c in controls(type(study))]
    changed = [(name, value) for name, value in pairs if value != _default(type(study), name)]
    return urlencode([(name, _text(value)) for name, value in changed])


def from_query(study: type[T], query: str) -> T:
    """Return the study a query describes; what is unknown is ignored and what is out of bounds is clamped."""
    return clamp(study, dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True, max_num_fields=200)))


def _default(study: type, name: str) -> Value:
    return next(c.default for c in controls(study) if c.name == name)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


def _fault(control: Control, value: object) -> str:
    name, bound = control.name, control.bound
    if control.kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (control.kind is float and isinstance(value, float)):
            return f"{name} must be {'a whole' if control.kind is int else 'a'} number, got {value!r}"
        number = float(value)  # type: ignore[arg-type]
        if isinstance(bound, Range) and not (bound.low <= number <= bound.high):
            return f"{name} must be between {bound.low:g} and {bound.high:g}, got {number:g}"
        return "" if math.isfinite(number) else f"{name} must be finite, got {number}"
    if not isinstance(value, control.kind):
        return f"{name} must be {'text' if control.kind is str else 'true or false'}, got {value!r}"
    if isinstance(bound, Choice) and value not in bound.options:
        return f"{name} must be one of {', '.join(bound.options)}, got {value!r}"
    if isinstance(bound, Words) and isinstance(value, str) and len(value) > bound.limit:
        return f"{name} must be at most {bound.limit:,} characters, got {len(value):,}: shorten it"
    return ""


def _tamed(control: Control, value: object) -> Value | None:
    if control.kind is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if control.kind is str:
        text = value if isinstance(value, str) else None
        return text[: control.bound.limit] if text and isinstance(control.bound, Words) else text
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 400:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if isinstance(control.bound, Range):
        number = min(max(number, control.bound.low), control.bound.high)
    exact = isinstance(value, int) and number == value
    return (value if exact else int(number)) if control.kind is int else number
