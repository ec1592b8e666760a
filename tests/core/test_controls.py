"""Knobs are read once, checked by name, and travel through a link."""

import math
from dataclasses import dataclass
from typing import Annotated

import pytest

from studio.core.controls import Choice, Knob, Range, Words, check, clamp, controls, from_query, knobs, to_query


@dataclass(frozen=True)
class Toy:
    steps: Annotated[int, Range(1, 10), Knob("Steps", "how many")] = 3
    rate: Annotated[float, Range(0.1, 1.0)] = 0.5
    mode: Annotated[str, Choice("a", "b")] = "a"
    prompt: Annotated[str, Words(20)] = "hello"
    noise: bool = False

    def __post_init__(self):
        check(self)


def test_controls_follow_the_fields():
    found = controls(Toy)
    assert [c.name for c in found] == ["steps", "rate", "mode", "prompt", "noise"]
    assert found[0].knob == Knob("Steps", "how many") and found[0].bound == Range(1, 10)
    assert found[4].kind is bool and found[4].default is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("steps", 11), ("steps", 2.0), ("steps", True), ("rate", 2.0), ("rate", math.nan),
        ("rate", "x"), ("mode", "c"), ("prompt", "x" * 21), ("prompt", 5), ("noise", 1),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_field(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Toy(**{name: value})


@pytest.mark.parametrize(
    "toy",
    [Toy(), Toy(steps=10, rate=0.123456789012345, mode="b", prompt="ß & <b> = ?", noise=True), Toy(prompt="")],
)
def test_query_round_trip(toy):
    assert from_query(Toy, to_query(toy)) == toy
    assert from_query(Toy, "?" + to_query(toy)) == toy


def test_defaults_are_left_out_of_the_link():
    assert to_query(Toy()) == ""
    assert to_query(Toy(steps=4)) == "steps=4"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("steps=99", Toy(steps=10)), ("steps=-1&unknown=1", Toy(steps=1)), ("steps=abc", Toy()), ("rate=nan", Toy()),
        ("rate=1e999", Toy()), ("mode=zzz", Toy()), ("prompt=" + "y" * 99, Toy(prompt="y" * 20)),
        ("noise=maybe", Toy()), ("noise=TRUE", Toy(noise=True)), ("steps=" + "9" * 5000, Toy()), ("=&&;%%%", Toy()),
    ],
)  # fmt: skip
def test_a_hostile_link_is_tamed(query, expected):
    assert from_query(Toy, query) == expected


def test_clamp_takes_plain_values_and_ignores_the_rest():
    wild = {"steps": 4.0, "rate": 7, "prompt": None, "noise": True, "mode": ["a"], "x": object()}
    assert clamp(Toy, wild) == Toy(steps=4, rate=1.0, noise=True)
    assert clamp(Toy, knobs(Toy(steps=9))) == Toy(steps=9)
