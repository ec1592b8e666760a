"""Data sets on this machine: found in the folder that STUDIO_DATA names, opened as if a stranger had packed them."""

__all__ = ["VARIABLE", "data_file", "data_folder", "decoded", "read_arrays"]

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

VARIABLE = "STUDIO_DATA"
FILE_LIMIT = 64 * 2**20
MEMBERS = 16
MAX_SIDE = 64
MAX_LETTERS = 64
LAST_LETTER = 0x10FFFF


def data_file(name: str, what: str) -> Path:
    """Return the path of `name` below the folder that STUDIO_DATA names.

    Raises `ValueError`, one sentence with the remedy, where the variable is not set or the file is not there; `what`
    names the data set in it.
    """
    path = _below(name, what, "file")
    if not path.is_file():
        raise _absent(name, what, "file")
    return path


def data_folder(name: str, what: str) -> Path:
    """Return the path of the folder `name` below the one that STUDIO_DATA names.

    Raises `ValueError`, one sentence with the remedy, where the variable is not set or the folder is not there.
    """
    path = _below(name, what, "folder")
    if not path.is_dir():
        raise _absent(name, what, "folder")
    return path


def read_arrays(path: Path, wanted: Mapping[str, str], limit: int = FILE_LIMIT) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name; `wanted` maps each name to its dtype.

    A dtype is "uint8", "int64", "float16" and the like, or "str" for text of at most 64 characters an entry.

    The file may come from anybody: sizes are checked before anything is parsed (at most `limit` bytes on disk and at
    most `limit` unpacked, an array), nothing is unpickled, and a header that promises more than is there is refused.
    Raises `ValueError` that says what is wrong.
    """
    if path.stat().st_size > limit:
        raise ValueError(
            f"{path.name} has {path.stat().st_size / 2**20:,.0f} MB: at most {limit / 2**20:,.0f} are read"
        )
    try:
        with zipfile.ZipFile(path) as packed:
            if len(packed.infolist()) > MEMBERS:
                raise ValueError(f"{path.name} holds {len(packed.infolist())} arrays: at most {MEMBERS} are looked at")
            return {name: _array(packed, name, dtype, limit) for name, dtype in wanted.items()}
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path.name} is not a readable .npz with {', '.join(wanted)}: fetch it again") from error


def decoded(
    blob: UInt8[np.ndarray, " m"], offsets: Int64[np.ndarray, " k"], rows: Sequence[int], side: int
) -> UInt8[np.ndarray, "n h w 3"]:
    """Return the pictures `rows` of a packed set (PNG or JPEG files one after the other) as RGB.

    Picture i is `blob[offsets[i]:offsets[i + 1]]`. Raises `ValueError` where offsets leave the blob, a picture is not
    `side` by `side`, or it cannot be read.
    """
    pictures = []
    for row in rows:
        begin, end = int(offsets[row]), int(offsets[row + 1])
        if not 0 <= begin <= end <= len(blob):
            raise ValueError(f"picture {row} lies outside its file: the packed set is damaged, fetch it again")
        try:
            with Image.open(io.BytesIO(blob[begin:end].tobytes()), formats=["PNG", "JPEG"]) as picture:
                if picture.size != (side, side) or side > MAX_SIDE:
                    raise ValueError(f"picture {row} is {picture.size[0]} x {picture.size[1]}, not {side} x {side}")
                pictures.append(np.asarray(picture.convert("RGB")))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"picture {row} is no readable PNG or JPEG: fetch the packed set again") from error
    return np.stack(pictures)


def _below(name: str, what: str, kind: str) -> Path:
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        raise ValueError(
            f"data {what!r} needs the {kind} {name}: set {VARIABLE} to the folder that holds it, "
            "or choose data 'digits'"
        )
    return Path(folder) / name


def _absent(name: str, what: str, kind: str) -> ValueError:
    return ValueError(
        f"data {what!r} needs the {kind} {name} in the folder that {VARIABLE} names: put it there, or choose 'digits'"
    )


def _array(packed: zipfile.ZipFile, name: str, dtype: str, limit: int) -> np.ndarray:
    with packed.open(f"{name}.npy") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"the array {name} unpacks to over {limit / 2**20:,.0f} MB: a real one is smaller")
    buffer = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(buffer)
        shape, fortran, found = np.lib.format.read_array_header_1_0(buffer)
    except ValueError as error:
        raise ValueError(f"the array {name} has no readable header: pack it again with numpy.savez") from error
    if version != (1, 0):
        raise ValueError(f"the array {name} has format {version}, not 1.0: pack it again with numpy.savez")
    if fortran or not (_short_text(found) if dtype == "str" else found == np.dtype(dtype)):
        raise ValueError(f"the array {name} must hold {dtype} in C order, got {found}")
    left = len(data) - buffer.tell()
    if any(side < 0 for side in shape) or math.prod(shape) * found.itemsize != left:
        raise ValueError(f"the array {name} says it has the shape {shape} and holds {left} bytes: it is damaged")
    if dtype == "str" and (np.frombuffer(data, dtype=np.uint32, offset=buffer.tell()) > LAST_LETTER).any():
        raise ValueError(f"the array {name} holds text that is no Unicode: it is damaged")
    return np.frombuffer(data, dtype=found, offset=buffer.tell()).reshape(shape)


def _short_text(dtype: np.dtype) -> bool:
    return dtype.kind == "U" and dtype.isnative and 0 < dtype.itemsize <= 4 * MAX_LETTERS
