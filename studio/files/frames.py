"""Snapshots as bytes: every tensor and number of a step in one safetensors block, and nothing that can execute."""

__all__ = ["FRAME_LIMIT", "snapshot_bytes", "snapshot_from"]

import dataclasses
import json
from typing import Any, TypeVar, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from studio.core.snapshots import MAX_BYTES, Snapshot

S = TypeVar("S", bound=Snapshot)
FRAME_LIMIT = 4 * MAX_BYTES
RECORD = "record"


def snapshot_bytes(snapshot: Snapshot) -> bytes:
    """Return a snapshot as bytes: its tensors by name, its numbers and words as JSON beside them.

    Fields may be tensors, numbers, words, None, tuples and dataclasses of these; anything else is a `ValueError`.
    """
    tensors: dict[str, Tensor] = {}
    record = json.dumps(_packed(snapshot, "", tensors)).encode()
    tensors[RECORD] = torch.frombuffer(bytearray(record), dtype=torch.uint8)
    return save(tensors)


def snapshot_from(data: bytes, kind: type[S]) -> S:
    """Return the snapshot of class `kind` in bytes that may be damaged or come from anybody, on the CPU.

    Raises `ValueError`, in one sentence, where they are not such a snapshot.
    """
    if len(data) > FRAME_LIMIT:
        raise ValueError(f"this snapshot has {len(data) / 2**20:,.0f} MB: at most {FRAME_LIMIT / 2**20:,.0f} are read")
    try:
        tensors = load(data)
        record = json.loads(bytes(tensors.pop(RECORD).numpy()))
        return _unpacked(record, kind, tensors)
    except (
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        RuntimeError,
        StopIteration,
    ) as error:
        raise ValueError(f"this is no readable {kind.__name__}: run the study again") from error


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # Cloned, because safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, tuple):
        return {"tuple": [_packed(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {"record": {f.name: _packed(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in fields}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"{name} is a {type(value).__name__}: a snapshot holds tensors, numbers, words, tuples and records"
    )


def _unpacked(value: Any, kind: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unpacked(item, None, tensors) for item in value["tuple"])
    made: Any = next(option for option in (kind, *get_args(kind)) if dataclasses.is_dataclass(option))
    hints = get_type_hints(made)
    return made(**{name: _unpacked(item, hints.get(name), tensors) for name, item in value["record"].items()})
