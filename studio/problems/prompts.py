"""Prompts: several weighted texts in one line, as a direction CLIP can be asked to follow."""

__all__ = ["Phrase", "parse_prompt", "prompt_target"]

import re
import unicodedata
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.nets.clip import Clip

LIMIT = 500
HEAVIEST = 100.0
WEIGHT = re.compile(r"^(.*\S)\s*:\s*([+-]?(?:\d+\.?\d*|\.\d+))$", re.DOTALL)


@dataclass(frozen=True)
class Phrase:
    """One text and how much it counts; a negative weight asks for pictures unlike it."""

    text: str
    weight: float = 1.0


def parse_prompt(prompt: str) -> tuple[Phrase, ...]:
    """Return the phrases of ``a fox:2 | blue background | blurry:-0.5``.

    ``|`` parts phrases, ``:number`` at the end of one is its weight (1 where it is left out); a colon before
    anything but a number stays part of the text. Control characters become spaces; nothing else is changed.
    Raises `ValueError`, in one sentence that names prompt, where there is nothing to draw.
    """
    if len(prompt) > LIMIT:
        raise ValueError(f"prompt must be at most {LIMIT} characters, got {len(prompt):,}: shorten it")
    plain = "".join(" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in prompt)
    phrases = tuple(_phrase(" ".join(part.split())) for part in plain.split("|") if part.strip())
    if not any(_visible(phrase.text) for phrase in phrases):
        raise ValueError("prompt must hold at least one word: say what to draw, such as 'a red apple'")
    phrases = tuple(phrase for phrase in phrases if _visible(phrase.text))
    if all(phrase.weight == 0 for phrase in phrases):
        raise ValueError("prompt gives every phrase the weight 0: let at least one count, such as 'a fox:1'")
    return phrases


def prompt_target(clip: Clip, phrases: tuple[Phrase, ...]) -> Float[Tensor, " d"]:
    """Return sum_i w_i T_i / sum_i |w_i| over the unit text features: its product with a picture's is the score."""
    weights = torch.tensor([phrase.weight for phrase in phrases])
    features = clip.encode_text([phrase.text for phrase in phrases])
    return (weights / weights.abs().sum()).to(features) @ features


def _phrase(part: str) -> Phrase:
    found = WEIGHT.match(part)
    if found is None:
        return Phrase(part)
    weight = float(found[2])
    if abs(weight) > HEAVIEST:
        raise ValueError(f"prompt weights must be between -{HEAVIEST:g} and {HEAVIEST:g}, got {found[2][:20]}")
    return Phrase(found[1], weight)


def _visible(text: str) -> bool:
    return any(unicodedata.category(letter)[0] not in "ZC" for letter in text)
