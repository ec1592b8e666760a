"""A kept run as a short script that repeats it and says whether the bytes agree."""

__all__ = ["script"]

import hashlib
import re
from typing import Any

from studio.core.controls import controls, knobs
from studio.desk.store import Row
from studio.studies.study import Study

TO_THE_END = "snapshot = last(study.run())\n"
TO_A_STEP = """\
# This run ended early: at step {step} of {total}.
with closing(study.run()) as run:
    for snapshot in run:
        if snapshot.step > {step} or (snapshot.step == {step} and digest(snapshot) == KEPT):
            break
"""
SCRIPT = '''\
"""Repeat one run of the optimisation studio and say whether its bytes agree with those that were kept.

The same bytes are promised on the same device, with the same versions and as many threads (set OMP_NUM_THREADS where
the run had another number of them); elsewhere the last digits may differ.
"""

import hashlib
import sys
{imports}
from {module} import {name}

KEPT = {kept!r}
KEPT_BY = {by!r}


def digest(snapshot):
    return hashlib.sha256(snapshot_bytes(snapshot)).hexdigest()


study = {name}(
{knobs})
{run}
print(snapshot.outcome or f"step {{snapshot.step}} of {{snapshot.total}}")
if digest(snapshot) != KEPT:
    sys.exit(f"The bytes differ from those kept by {{KEPT_BY}}: see the top of this file for what may be the cause.")
print("The bytes agree with those that were kept.")
'''


def script(study: Study, row: Row, data: bytes, step: int) -> str:
    """Return a script that runs the study again, up to `step` where it had not reached its end.

    `data` are the bytes of its last snapshot. Values are written as Python literals, so none can be code. Raises
    `ValueError` where the run went on from another one, has not ended, or no script can import its study.
    """
    kind = type(study)
    if row.parent:
        raise ValueError("this run went on from another one: export that one, or use studio replay")
    if row.open or row.state == "failed":
        raise ValueError("only a run that has ended well can be repeated by a script: wait for it, or run it again")
    if kind.__module__ == "__main__" or not re.fullmatch(r"[\w.]+:\w+", f"{kind.__module__}:{kind.__qualname__}"):
        raise ValueError(f"no script can import {kind.__name__}: put it at the top of a module of its own")
    whole = row.state == "done"
    ending = "from studio.core.runs import last\n" if whole else ""
    imports = ("" if whole else "from contextlib import closing\n") + "\n" + ending
    return SCRIPT.format(
        imports=imports + "from studio.files.frames import snapshot_bytes",
        module=kind.__module__,
        name=kind.__name__,
        kept=row.digest or hashlib.sha256(data).hexdigest(),
        by=f"studio {row.version} on {row.device or 'an unknown device'}",
        knobs="".join(f"    {name}={value!r},\n" for name, value in _changed(study).items()),
        run=TO_THE_END if whole else TO_A_STEP.format(step=step, total=row.total),
    )


def _changed(study: Study) -> dict[str, Any]:
    """Return the knobs that differ from their defaults, and always the seed, which comes last."""
    defaults = {control.name: control.default for control in controls(type(study))}
    values = knobs(study)
    changed = {name: value for name, value in values.items() if name != "seed" and value != defaults[name]}
    return changed | {"seed": values["seed"]}
