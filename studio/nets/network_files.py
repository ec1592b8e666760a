"""Grown and pruned networks as files: weights as safetensors, the architecture and the log of edits as JSON inside."""

__all__ = ["load_into", "load_network", "network_bytes", "read_network", "save_network"]

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import isfinite, prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from studio.nets.architecture import PARAMETER_LIMIT, built, described
from studio.nets.carry import copied
from studio.nets.surgery import Edit, replayed

FILE_LIMIT = 8 * PARAMETER_LIMIT
HEADER_LIMIT = 16 * 2**20  # it holds the log of edits, which grows with every round
TENSOR_LIMIT, ITEM_LIMIT, DEPTH_LIMIT, SIDES = 20_000, 2_000_000, 32, 8
NETWORK, LOG = "network.", "log."
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# A string of JSON, ended or not: every text is matched in one pass, whatever it is.
STRINGS = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
MARKS = "[]{},"
DEPTHS = {"[": 1, "{": 1, "]": -1, "}": -1}


def save_network(path: Path, network: nn.Module, edits: Sequence[Edit] = ()) -> None:
    """Write a network and the edits that grew it to one file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(network_bytes(network, edits))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def network_bytes(network: nn.Module, edits: Sequence[Edit] = ()) -> bytes:
    """Return a network and the edits that grew it as the bytes of one safetensors file.

    A network that cannot be described as a graph is written without its architecture, for `load_into`.
    """
    try:
        architecture: dict[str, Any] | None = described(network)
    except (ValueError, RuntimeError, TypeError, TraceError):
        architecture = None
    tensors = {NETWORK + name: copied(part) for name, part in network.state_dict().items()}
    tensors |= {f"{LOG}{place}": copied(edit.added) for place, edit in enumerate(edits) if edit.added is not None}
    log = [[edit.tensor, edit.axis, edit.index, edit.values, edit.moments, edit.groups] for edit in edits]
    words = {"architecture": json.dumps(architecture), "log": json.dumps(log)}
    return save(tensors, metadata=words)


def load_network(path: Path) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return the network in a file, bit for bit and in evaluation mode, and its edits; the file may come from anybody.

    Raises `ValueError`, in a sentence, where it cannot be read or holds no architecture.
    """
    return _network(_opened(_mapped(path), path.name))


def read_network(data: bytes, name: str = "the file") -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return the network in the bytes of a file, as `load_network` does, and its edits; nothing in them is run.

    `name` is what the sentences call the file. Sizes are checked before anything is parsed, and everything else before
    weights are copied. Whether the layers fit each other shows only when it runs: see `studio.nets.trial`.
    """
    return _network(_opened(data, name))


def load_into(path: Path, seed: nn.Module) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return a copy of the seed network grown as the file's log says, with the file's weights.

    For networks that tracing cannot follow: `seed` is the network before it grew. Raises `ValueError` where they do not
    fit each other.
    """
    opened = _opened(_mapped(path), path.name)
    edits = _edits(opened)
    try:
        network = replayed(seed, edits)
        network.load_state_dict(_weights(opened), strict=True)
    except (RuntimeError, AttributeError, IndexError, ValueError, KeyError) as error:
        raise ValueError(
            f"{opened.name} did not grow from this network: pass the one it was before its first edit"
        ) from error
    return network, edits


@dataclass(frozen=True)
class _Part:
    """A tensor as a file's header announces it; `begin` and `end` are places in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class _Opened:
    """A file whose header has been read and found in order, and whose weights have not been read yet."""

    name: str
    data: bytes | mmap
    words: Mapping[str, str]
    parts: Mapping[str, _Part]


def _mapped(path: Path) -> bytes | mmap:
    """Return the bytes of a file, which are read from the disk only where they are looked at."""
    if not path.is_file():
        raise ValueError(f"there is no file {_shown(path.name)}: check the path")
    try:
        with path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ) if path.stat().st_size else b""
    except OSError as error:
        raise ValueError(f"{_shown(path.name)} cannot be opened: check who may read it") from error


def _opened(data: bytes | mmap, name: str) -> _Opened:
    """Return a file with its header read; all sizes are checked before anything is parsed."""
    name = _shown(name)
    if len(data) > FILE_LIMIT:
        raise ValueError(f"{name} has {len(data) / 2**30:,.1f} GB: at most {FILE_LIMIT / 2**30:,.1f} are read")
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" and data[:4].startswith(PICKLES):
        raise ValueError(
            f"{name} is a pickle, which could run anything: save the network again as safetensors, "
            "with studio export or save_network"
        )
    if data[8:9] != b"{" or length > len(data) - 8:
        raise ValueError(f"{name} is no whole safetensors file: save the network again")
    if length > HEADER_LIMIT:
        raise ValueError(
            f"{name} has a header of {length / 2**20:,.1f} MB: at most {HEADER_LIMIT / 2**20:,.0f} are read, "
            "so save the network without its log"
        )
    try:
        text = data[8 : 8 + length].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} has a header that is no text: save the network again") from error
    header = _json(text, f"{name} has no readable header", 16 * TENSOR_LIMIT)
    if not isinstance(header, dict) or len(header) > TENSOR_LIMIT:
        raise ValueError(f"{name} must have at most {TENSOR_LIMIT:,} tensors: save the network again")
    words = header.pop("__metadata__", {})
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise ValueError(f"{name} has no readable metadata: save the network again")
    return _Opened(name, data, words, _parts(header, 8 + length, len(data), name))


def _parts(header: Mapping[str, Any], start: int, stop: int, name: str) -> dict[str, _Part]:
    """Return the tensors of a header, which must fill the file from `start` to `stop` without gap or overlap."""
    parts = {key: _part(value, start, f"{name} has a tensor {_quoted(key)}") for key, value in header.items()}
    place = start
    for key, part in sorted(parts.items(), key=lambda item: (item[1].begin, item[1].end)):
        if part.begin != place:
            raise ValueError(f"{name} has tensors that overlap or leave gaps at {_quoted(key)}: save the network again")
        place = part.end
    if place != stop:
        raise ValueError(f"{name} has {stop - start:,} bytes of weights, not {place - start:,}: save the network again")
    return parts


def _part(value: Any, start: int, what: str) -> _Part:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} that is not described as safetensors are: save the network again")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{what} of the type {_quoted(dtype)}: convert the network with .float() and save it again")
    for numbers, most in ((shape, SIDES), (offsets, 2)):
        if not isinstance(numbers, list) or len(numbers) > most or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{what} with a shape or place that cannot be: save the network again")
    if len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{what} whose size is not that of its shape: save the network again")
    return _Part(DTYPES[dtype], tuple(shape), start + offsets[0], start + offsets[1])


def _json(text: str, what: str, most: int) -> Any:
    """Return what JSON says; it is counted first, so that nobody's text makes more than `most` things of it."""
    bare = STRINGS.sub("", text)
    if sum(map(bare.count, MARKS)) > most:
        raise ValueError(f"{what}, as it holds too many things: save the network again")
    if max(accumulate((DEPTHS[mark] for mark in bare if mark in DEPTHS), initial=0)) > DEPTH_LIMIT:
        raise ValueError(f"{what}, as its brackets lie too deep: save the network again")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: save the network again") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is given twice")
    return made


def _network(opened: _Opened) -> tuple[nn.Module, tuple[Edit, ...]]:
    text = opened.words.get("architecture", "null")
    description = _json(text, f"{opened.name} has no readable architecture", ITEM_LIMIT)
    if not isinstance(description, dict):
        raise ValueError(f"{opened.name} holds weights only: build its seed network and use load_into")
    network = built(description)
    edits = _edits(opened)
    _matched(opened, network.state_dict())
    network.load_state_dict(_weights(opened), strict=True, assign=True)
    return network.eval(), edits


def _matched(opened: _Opened, wanted: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` where the announced tensors are not those of the architecture, or of several float types."""
    own = {key.removeprefix(NETWORK): part for key, part in opened.parts.items() if key.startswith(NETWORK)}
    for key in [*(wanted.keys() - own.keys()), *(own.keys() - wanted.keys())][:1]:
        verb = "lacks" if key in wanted else "has no place for"
        raise ValueError(f"{opened.name} {verb} the tensor {_quoted(key)}: save the network again")
    first = next((own[key].dtype for key, part in wanted.items() if part.is_floating_point()), torch.float32)
    for key, part in wanted.items():
        if own[key].shape != tuple(part.shape):
            raise ValueError(
                f"{opened.name} has {_quoted(key)} in the shape {list(own[key].shape)[:6]}, which does not fit its "
                f"architecture: {list(part.shape)} is needed"
            )
        if own[key].dtype != (first if part.is_floating_point() else part.dtype) or not first.is_floating_point:
            raise ValueError(f"{opened.name} has weights of several types: convert the network with .float() first")


def _weights(opened: _Opened) -> dict[str, Tensor]:
    """Return the network's own tensors, read."""
    return {
        key.removeprefix(NETWORK): _tensor(opened, key, part)
        for key, part in opened.parts.items()
        if key.startswith(NETWORK)
    }


def _tensor(opened: _Opened, key: str, part: _Part) -> Tensor:
    count = part.end - part.begin
    raw = np.frombuffer(opened.data, np.uint8, count, part.begin).copy() if count else np.zeros(0, np.uint8)
    if part.dtype == torch.bool and count and raw.max() > 1:
        raise ValueError(f"{opened.name} has a truth value in {_quoted(key)} that is none: save the network again")
    tensor = torch.from_numpy(raw).view(part.dtype).reshape(part.shape)
    if part.dtype.is_floating_point and not bool(tensor.isfinite().all()):
        raise ValueError(f"{opened.name} has NaN or infinite weights in {_quoted(key)}: train it with a smaller step")
    return tensor


def _edits(opened: _Opened) -> tuple[Edit, ...]:
    """Return the log of edits with the tensors that belong to it; a tensor that belongs to nothing is refused."""
    log = _json(opened.words.get("log", "[]"), f"{opened.name} has no readable log of edits", ITEM_LIMIT)
    try:
        made = [_edit(*entry) for entry in log]
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{opened.name} has no readable log of edits: save the network again") from error
    added = {f"{LOG}{place}": place for place in range(len(made))}
    for key, part in opened.parts.items():
        if key in added:
            made[added[key]] = replace(made[added[key]], added=_tensor(opened, key, part))
        elif not key.startswith(NETWORK):
            raise ValueError(f"{opened.name} has no place for the tensor {_quoted(key)}: save the network again")
    return tuple(made)


def _edit(
    tensor: str, axis: int, index: list[int], values: list[float], moments: list[float], groups: int
) -> Edit:  # fmt: skip
    """Return one entry of a log as an edit; raises `ValueError` where it is none."""
    whole = all(type(number) is int for number in (axis, groups, *index))
    sound = whole and isinstance(tensor, str) and 0 <= axis < SIDES and groups >= 1 and min(index, default=0) >= -1
    if not sound or not len(index) == len(values) == len(moments):
        raise ValueError("an edit has an index that cannot be")
    factors = [tuple(float(number) for number in numbers) for numbers in (values, moments)]
    if not all(isfinite(number) for numbers in factors for number in numbers):
        raise ValueError("an edit has a factor that is no number")
    return Edit(tensor, axis, tuple(index), factors[0], factors[1], groups)


def _shown(name: str) -> str:
    """Return a file's name as it may stand in a sentence."""
    return "".join(mark if mark.isprintable() else "?" for mark in name[:60]) or "the file"


def _quoted(value: Any) -> str:
    return ascii(value[:40] if isinstance(value, str) else value)[:50]
