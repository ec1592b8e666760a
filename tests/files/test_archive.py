"""Pictures carry their recipe, survive crashes whole, and hostile ones are refused with a sentence."""

import io
import json
import random
import zlib

import numpy as np
import pytest
from PIL import Image

from studio.files.archive import Recipe, parse_recipe, png_bytes, png_recipe, recipe_text, write_whole

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
RECIPE = Recipe("fusedream", "0.1.0", {"prompt": 'a "fox" <b>\u202e ü', "seed": 7, "rate": 0.1, "noise": True})


def test_round_trip_is_exact():
    data = png_bytes(PIXELS, RECIPE)
    assert png_recipe(data) == RECIPE
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), PIXELS)


def test_same_run_same_bytes():
    assert png_bytes(PIXELS, RECIPE) == png_bytes(PIXELS.copy(), RECIPE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"), ("[1]", "names no study"), ('{"study": 3}', "names no study"), ("[" * 100_000, "JSON"),
        ('{"study": "x", "schema": 9}', "newer"), ('{"study": "x", "schema": null}', "schema"),
        (" " * 2_000_000, "over 1 MB"),
    ],
)  # fmt: skip
def test_a_broken_recipe_gets_a_sentence(text, words):
    with pytest.raises(ValueError, match=words):
        parse_recipe(text)


def test_nested_and_odd_knobs_are_dropped():
    text = json.dumps({"schema": 1, "study": "x", "knobs": {"a": 1, "b": [1], "c": {"d": 2}, "e": None}})
    assert parse_recipe(text).knobs == {"a": 1}
    assert parse_recipe('{"schema": 1, "study": "x", "knobs": 5}').knobs == {}


def test_three_hundred_mutated_pictures_are_answered():
    """Every mutation either still reads as a recipe or is refused by a ValueError; nothing else escapes."""
    rng = random.Random(0)
    whole = png_bytes(PIXELS, RECIPE)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            png_recipe(bytes(data[: rng.randint(1, len(data))]))
        except ValueError:
            refused += 1
    assert refused > 250


def test_other_files_are_refused():
    for data in (b"", b"GIF89a", b"<svg onload=alert(1)>", png_bytes(PIXELS)):
        with pytest.raises(ValueError, match="PNG"):
            png_recipe(data)
    with pytest.raises(ValueError, match="at most 16"):
        png_recipe(b"x" * (17 * 2**20))


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded():
    header = (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    chunk = b"\x00\x00\x00\x0dIHDR" + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"readable PNG|at most"):
        png_recipe(b"\x89PNG\r\n\x1a\n" + chunk)


def test_write_whole_replaces_or_leaves_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two" and [p.name for p in tmp_path.iterdir()] == ["a.png"]

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="No space left"):
        write_whole(path, b"three")
    assert path.read_bytes() == b"two" and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_folder_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="choose another folder"):
        write_whole(tmp_path / "nowhere" / "a.png", b"x")


def test_recipe_text_is_ascii():
    assert recipe_text(RECIPE).isascii()
