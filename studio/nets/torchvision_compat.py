"""The one door through which open_clip is imported, so that it also opens beside a CPU-only build of torch.

The usual torchvision wheel declares what two of its compiled operators return as soon as it is imported. Beside
a CPU-only torch the compiled part does not load, the operators are unknown, and the import stops. Here that exact
error, and no other, is answered by declaring the operator's signature and importing again. The order matters:
declaring first would abort the process where torchvision works.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

import torch

__all__ = ["import_open_clip", "import_torchvision"]

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_ROUNDS = 4
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Return torchvision, imported whether or not its compiled operators fit the installed torch."""
    for _ in range(_ROUNDS):
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            found = _MISSING.fullmatch(str(error).strip())
            if found is None:
                raise
            _declare(found[1])
    return importlib.import_module("torchvision")


def import_open_clip() -> ModuleType:
    """Return open_clip, with torchvision made importable first."""
    import_torchvision()
    return importlib.import_module("open_clip")


def _declare(operator: str) -> None:
    """Make one operator's signature known and forget the half-loaded modules."""
    for name in [name for name in list(sys.modules) if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{operator}{_SIGNATURE}")
    _declared.append(library)
