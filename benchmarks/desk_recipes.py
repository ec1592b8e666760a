"""Broken recipes by the hundred, as JSON, in pictures and in links: each is refused in a sentence or tamed."""

__all__ = ["recipes"]

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote

import numpy as np
from PIL import Image, PngImagePlugin

from benchmarks.desk_study import Walk
from studio.catalog import CATALOG
from studio.core.controls import check, clamp, from_query, knobs, to_query
from studio.files.archive import Recipe, parse_recipe, png_bytes, png_recipe, recipe_text
from studio.studies.study import Study

STUDIES: tuple[type[Study], ...] = (*CATALOG, Walk)
BY_NAME = {study.name: study for study in STUDIES}
LONGEST = 500
ODD: tuple[object, ...] = (
    None, True, False, [], {}, [[]], {"a": 1}, "", "x" * 5000, "\ud800", "\x00", "<img src=x onerror=alert(1)>",
    "../../etc/passwd", "1e999", "nan", "inf", "-0", "0x10", "１２", 1e308, -1e308, 1e999, -1e999, float("nan"),
    2**63, -(2**63), 10**300, 10**4000, -1, 0, 0.5, 1e-320, "true", "null", "9" * 399, "9" * 4400,
)  # fmt: skip


def recipes(count: int = 300, seed: int = 0) -> dict[str, object]:
    """Break `count` recipes in ways drawn from a seed and say how each was answered."""
    dice, refused, tamed, notes = random.Random(seed), 0, 0, []
    ways: list[Callable[[random.Random], Study]] = [_json, _picture, _link]
    for number in range(count):
        state = dice.getrandbits(64)
        try:
            study = ways[number % len(ways)](random.Random(state))
            check(study)
            recipe_text(Recipe(study.name, "1", knobs(study)))
            tamed += 1
        except ValueError as error:
            if type(error) is ValueError and _sentence(str(error)):
                refused += 1
            else:
                notes.append(f"{ways[number % len(ways)].__name__} {state}: {type(error).__name__} {error}"[:300])
        except Exception as error:
            notes.append(f"{ways[number % len(ways)].__name__} {state}: {type(error).__name__} {error}"[:300])
    return {
        "broken_recipes": count,
        "broken_recipes_seed": seed,
        "broken_refused": refused,
        "broken_tamed": tamed,
        "broken_crashes": len(notes),
        "broken_notes": notes[:10],
    }


def _sentence(text: str) -> bool:
    return bool(text) and "\n" not in text and len(text) <= LONGEST and "Traceback" not in text


def _study(recipe: Recipe) -> Study:
    """Return the study of a recipe the way a page makes it; a `ValueError` where there is none of that name."""
    if recipe.study not in BY_NAME:
        raise ValueError(f"this studio has no study called {recipe.study[:60]!r}")
    return clamp(BY_NAME[recipe.study], recipe.knobs)


def _json(dice: random.Random) -> Study:
    text = json.dumps(_broken_record(dice))
    for way in dice.sample((_cut, _flipped_text, _deep, _doubled, _same), 2):
        text = way(text, dice)
    return _study(parse_recipe(text))


def _picture(dice: random.Random) -> Study:
    record = _broken_record(dice)
    pixels = np.full((8, 8, 3), 40, dtype=np.uint8)
    way = dice.randrange(6)
    if way == 0:
        data = png_bytes(pixels)
    elif way == 1:
        data = _bomb(dice)
    elif way == 2:
        data = _resized(png_bytes(pixels, Recipe("walk", "1", {"steps": 3})), dice)
    else:
        notes, stream = PngImagePlugin.PngInfo(), io.BytesIO()
        add = notes.add_itxt if dice.random() < 0.5 else notes.add_text
        text = json.dumps(record)
        add("studio", _deep(text, dice) if dice.random() < 0.3 else text)
        Image.fromarray(pixels).save(stream, format="PNG", pnginfo=notes)
        data = stream.getvalue()
    if dice.random() < 0.4:
        data = data[: dice.randrange(len(data))]
    for _ in range(dice.choice((0, 0, 1, 3, 20))):
        spot = dice.randrange(max(len(data), 1))
        data = data[:spot] + bytes([data[spot] ^ (1 << dice.randrange(8))]) + data[spot + 1 :] if data else b""
    return _study(png_recipe(data))


def _link(dice: random.Random) -> Study:
    study = dice.choice(STUDIES)
    values = [(name, dice.choice((value, *ODD))) for name, value in knobs(study()).items()]
    values += [(f"unknown{index}", dice.choice(ODD)) for index in range(dice.randrange(4))]
    values += [("run", "../x"), ("study", "<b>")] if dice.random() < 0.3 else []
    dice.shuffle(values)
    query = "&".join(f"{name}={quote(_printed(value), safe='', errors='replace')}" for name, value in values)
    if dice.random() < 0.4:
        query = query[: dice.randrange(len(query) + 1)]
    if dice.random() < 0.3:
        query = query.replace("=", "%", 2).replace("&", ";", 1) + "%zz%ff&&==&" * dice.randrange(300)
    made = from_query(study, query)
    again = from_query(study, to_query(made))
    if again != made:
        raise AssertionError("a link does not bring its own study back")
    try:
        return clamp(study, dict(parse_qsl(query)))
    except ValueError as error:
        raise ValueError(str(error)) from error


def _broken_record(dice: random.Random) -> dict[str, Any]:
    """Return a recipe's record with some of its values odd, some names unknown and perhaps another schema."""
    study = dice.choice(STUDIES)
    values: dict[str, Any] = dict(knobs(study()))
    for name in dice.sample(sorted(values), dice.randrange(1, len(values) + 1)):
        values[name] = _plain(dice.choice(ODD))
    values |= {f"unknown{index}": _plain(dice.choice(ODD)) for index in range(dice.randrange(4))}
    record: dict[str, Any] = {"schema": 1, "study": study.name, "version": "1", "knobs": values}
    if dice.random() < 0.4:
        record[dice.choice(sorted(record))] = _plain(dice.choice(ODD))
    if dice.random() < 0.2:
        record.pop(dice.choice(sorted(record)))
    return record | ({"more": _plain(dice.choice(ODD))} if dice.random() < 0.3 else {})


def _plain(value: object) -> object:
    """Return a value that JSON can be written from; Python refuses to print longer whole numbers."""
    return float("inf") if isinstance(value, int) and abs(value) > 10**3999 else value


def _printed(value: object) -> str:
    return "1" + "0" * 4300 if isinstance(value, int) and abs(value) > 10**3999 else str(value)


def _same(text: str, _: random.Random) -> str:
    return text


def _cut(text: str, dice: random.Random) -> str:
    return text[: dice.randrange(len(text) + 1)]


def _flipped_text(text: str, dice: random.Random) -> str:
    letters = list(text)
    for _ in range(dice.randrange(1, 6)):
        if letters:
            letters[dice.randrange(len(letters))] = chr(dice.choice((0, 34, 92, 123, 125, 0xD800, 0x1F600, 44, 58)))
    return "".join(letters)


def _deep(text: str, dice: random.Random) -> str:
    depth = dice.choice((10, 500, 5000, 100_000))
    nested = dice.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth))
    return dice.choice((nested, text.replace("{", f'{{"nested": {nested}, ', 1)))


def _doubled(text: str, dice: random.Random) -> str:
    return dice.choice((text + text, text.replace('"', "'"), "\ufeff" + text, f"[{text}]", " " * 2**20 + text, '"x"'))


def _bomb(dice: random.Random) -> bytes:
    """Return a small PNG whose compressed note unfolds to many megabytes."""
    data = png_bytes(np.zeros((8, 8, 3), dtype=np.uint8))
    note = b"studio\0\0" + zlib.compress(b"[" * dice.choice((2**16, 2**23, 2**25)))
    return data[:33] + _chunk(b"zTXt", note) + data[33:]


def _resized(data: bytes, dice: random.Random) -> bytes:
    """Return a PNG whose head claims another size, with the checksum set right."""
    sides = (0, 1, 8, 9000, 20_000, 2**31 - 1, 2**32 - 1)
    head = struct.pack(">II", dice.choice(sides), dice.choice(sides)) + data[24:29]
    return data[:8] + _chunk(b"IHDR", head) + data[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
