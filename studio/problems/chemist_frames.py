"""Values as bytes between a process and its child: JSON and plain arrays, nothing that could run."""

__all__ = ["FrameError", "frame_bytes", "read_frame"]

import io
import json
import struct
from dataclasses import fields
from typing import Any

import numpy as np

from studio.problems.chemistry import Molecule
from studio.problems.mmff_terms import MMFFTerms

HEAD = struct.Struct(">II")
MOST_TEXT = 8 * 2**20
MOST_BYTES = 256 * 2**20
MOST_ARRAYS = 256
RECORDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Molecule, MMFFTerms)}
KINDS = "biuf"


class FrameError(ValueError):
    """What came through a pipe is no frame, or only a part of one."""


def frame_bytes(value: Any) -> bytes:
    """Return a value as one frame: numbers, text, bytes, arrays, tuples of them, molecules and their terms.

    Raises `ValueError` where it is too large to be sent.
    """
    arrays: list[bytes] = []
    text = json.dumps(_packed(value, arrays)).encode()
    body = b"".join(arrays)
    if len(text) > MOST_TEXT or len(body) > MOST_BYTES or len(arrays) > MOST_ARRAYS:
        raise ValueError(
            f"this is too much for one call ({len(text) + len(body):,} bytes): ask for fewer or smaller molecules"
        )
    return HEAD.pack(len(text), len(body)) + text + body


def read_frame(source: io.BufferedIOBase) -> Any:
    """Return the value of the next frame; raises `FrameError` where the pipe ends or holds anything else."""
    text_size, body_size = HEAD.unpack(_exactly(source, HEAD.size))
    if text_size > MOST_TEXT or body_size > MOST_BYTES:
        raise FrameError("a frame is larger than any may be")
    text, body = _exactly(source, text_size), io.BytesIO(_exactly(source, body_size))
    try:
        packed = json.loads(text)
        return _unpacked(packed, body)
    except FrameError:
        raise
    except (ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        raise FrameError(f"a frame does not hold what it says ({type(error).__name__})") from error


def _exactly(source: io.BufferedIOBase, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise FrameError("the pipe ended")
    return data


def _packed(value: Any, arrays: list[bytes]) -> Any:
    """Return a value as JSON; arrays and bytes are put behind one another, in the order they are read again."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": _array(np.frombuffer(value, dtype=np.uint8), arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _array(value, arrays)}
    if isinstance(value, tuple | list):
        return {"tuple": [_packed(part, arrays) for part in value]}
    name = type(value).__name__
    if RECORDS.get(name) is not type(value):
        raise TypeError(f"{name} cannot be sent to another process")
    return {"record": name, "parts": [_packed(getattr(value, field.name), arrays) for field in fields(value)]}


def _array(array: np.ndarray, arrays: list[bytes]) -> int:
    if array.dtype.kind not in KINDS:
        raise TypeError(f"an array of {array.dtype} cannot be sent to another process")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    arrays.append(stream.getvalue())
    return len(arrays) - 1


def _unpacked(packed: Any, body: io.BufferedIOBase) -> Any:
    if not isinstance(packed, dict):
        return packed
    if "tuple" in packed:
        return tuple(_unpacked(part, body) for part in packed["tuple"])
    if "record" in packed:
        return RECORDS[packed["record"]](*(_unpacked(part, body) for part in packed["parts"]))
    array = np.lib.format.read_array(body, allow_pickle=False, max_header_size=1_000)
    if array.dtype.kind not in KINDS:
        raise FrameError("a frame holds an array that is not of numbers")
    return array.tobytes() if "bytes" in packed else array
