"""A snapshot is the frozen record of one step of a run, light enough to keep and to send."""

__all__ = ["MAX_BYTES", "Snapshot", "nbytes"]

from dataclasses import dataclass, fields

import numpy as np
import torch

MAX_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """One step of a run: where it stands and, in a subclass, detached copies of the arrays it is about.

    `step` counts finished steps and `total` is the number planned, so `step / total` is the progress;
    `phase` names what the method is doing; `outcome` is empty until the last snapshot, where it is a sentence.
    """

    step: int
    total: int
    phase: str
    outcome: str = ""


def nbytes(snapshot: Snapshot) -> int:
    """Return the bytes held by the arrays of a snapshot; a run keeps each below `MAX_BYTES`."""
    values = [getattr(snapshot, field.name) for field in fields(snapshot)]
    return sum(_bytes(value) for value in values)


def _bytes(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, tuple):
        return sum(_bytes(item) for item in value)
    return 0
