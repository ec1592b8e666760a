"""What a studio lets a run cost: how many may wait, how long one may take, and caps on knobs."""

__all__ = ["EXPOSED", "Policy", "policy_from"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from studio.core.controls import knobs
from studio.studies.study import Study


@dataclass(frozen=True)
class Policy:
    """Limits of a desk, beyond the bounds that a study's knobs have of their own.

    `waiting` runs may stand in the queue and `each` visitor may have that many open ones; a run is stopped after
    `minutes` of work, with what it has; `caps` are the highest values of knobs by name (steps, images, points ...).
    """

    waiting: int = 64
    each: int = 16
    minutes: float = 240.0
    caps: Mapping[str, float] = field(default_factory=dict)

    def check(self, study: Study) -> None:
        """Raise a `ValueError` that names the first knob above its cap."""
        for name, value in knobs(study).items():
            most = self.caps.get(name)
            if most is not None and isinstance(value, int | float) and value > most:
                raise ValueError(f"{name} is at most {most:g} on this studio, got {value:g}: choose less")


EXPOSED = Policy(each=3, minutes=10.0, caps={"steps": 1000})


def policy_from(limits: Sequence[str], base: Policy) -> Policy:
    """Return `base` with limits written as NAME=NUMBER, NAME being waiting, each, minutes or a knob.

    Raises `ValueError` for anything else.
    """
    caps = dict(base.caps)
    for limit in limits:
        name, _, text = limit.partition("=")
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(f"--limit wants NAME=NUMBER, for example steps=500, got {limit!r}") from error
        if not value > 0:
            raise ValueError(f"--limit {name} must be above 0, got {text}")
        if name == "minutes":
            base = replace(base, minutes=value)
        elif name in ("waiting", "each"):
            base = replace(base, **{name: int(value)})
        else:
            caps[name] = value
    return replace(base, caps=caps)
