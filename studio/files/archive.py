"""What a run leaves on disk: pictures that carry their whole recipe, written so that a crash leaves no half file."""

__all__ = ["MAX_PNG_BYTES", "Recipe", "parse_recipe", "png_bytes", "png_recipe", "recipe_text", "write_whole"]

import io
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

MAX_PNG_BYTES = 16 * 2**20
MAX_SIDE = 8192
SCHEMA = 1
KEY = "studio"
PLAIN = (str, int, float, bool)


@dataclass(frozen=True)
class Recipe:
    """All that repeats a run: the study's name, the package version that ran it, and every knob."""

    study: str
    version: str
    knobs: dict[str, str | int | float | bool]


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as JSON text."""
    record = {"schema": SCHEMA, "study": recipe.study, "version": recipe.version, "knobs": recipe.knobs}
    return json.dumps(record, ensure_ascii=True, sort_keys=True)


def parse_recipe(text: str) -> Recipe:
    """Return the recipe in JSON text, which may come from anybody; a `ValueError` says what is wrong with it.

    Knobs that are not plain values are dropped; whether the others fit is for the study to say.
    """
    if len(text) > 2**20:
        raise ValueError("this recipe is over 1 MB: a real one is a few hundred bytes")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("this is no recipe of the studio: its text is not JSON") from error
    if not isinstance(record, dict) or not isinstance(record.get("study"), str):
        raise ValueError("this is no recipe of the studio: it names no study")
    schema = record.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(f"this recipe has schema {schema!r}, newer than {SCHEMA}: update the studio to open it")
    found = record.get("knobs")
    found = found if isinstance(found, dict) else {}
    values = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, PLAIN)}
    return Recipe(study=record["study"], version=str(record.get("version", ""))[:40], knobs=values)


def png_bytes(pixels: UInt8[np.ndarray, "h w 3"], recipe: Recipe | None = None) -> bytes:
    """Return pixels as a PNG, exactly, with the recipe in its metadata."""
    notes = PngImagePlugin.PngInfo()
    if recipe is not None:
        notes.add_itxt(KEY, recipe_text(recipe))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=notes)
    return buffer.getvalue()


def png_recipe(data: bytes) -> Recipe:
    """Return the recipe in a PNG's metadata; a `ValueError` says why there is none."""
    if len(data) > MAX_PNG_BYTES:
        raise ValueError(f"this file has {len(data) / 2**20:.0f} MB; a picture of the studio has at most 16")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if max(picture.size) > MAX_SIDE:
                raise ValueError(f"this picture is {picture.size[0]} x {picture.size[1]}: at most {MAX_SIDE} a side")
            picture.load()
            text = getattr(picture, "text", {}).get(KEY)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("this file is not a readable PNG: drop a picture saved by the studio") from error
    if text is None:
        raise ValueError("this PNG carries no recipe: only pictures saved by the studio restore their knobs")
    return parse_recipe(str(text))


def write_whole(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: a temporary name in the same folder, flushed, then renamed.

    `durable` waits until the disk has it; without, a power cut (not a crash) may lose it.
    Raises `ValueError` with the remedy where the folder is missing or not writable, or the disk is full.
    """
    try:
        temporary = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex}.part")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ValueError(f"could not write {path.name}: {error.strerror}; choose another folder") from error
