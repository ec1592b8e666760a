"""A file of the visitor's own on a study's page: dropped, read by the study behind its clock, and shown as knobs."""

__all__ = ["file_drop", "opened", "wire_drop"]

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studio.core.controls import controls
from studio.studies.study import Study
from studio.surfaces.web_gradio import Component, gr
from studio.surfaces.web_html import say

MOST = 2 * 2**20


def file_drop(study: type[Study]) -> gr.File | None:
    """Return the place to drop a file on, inside the open column; None for a study that opens none."""
    if not study.files:
        return None
    kinds = ", ".join(kind.removeprefix(".").upper() for kind in study.files)
    return gr.File(label=f"Or drop a file: {kinds}", file_types=list(study.files), height=96, elem_classes="st-drop")


def wire_drop(drop: gr.File | None, study: type[Study], knobs: Sequence[Component], said: gr.HTML) -> None:
    """Let a dropped file set the knobs it says something about, and say what was read of it."""
    if drop is not None:
        outputs = [*knobs, said, drop]
        drop.upload(
            partial(opened, study), drop, outputs, queue=False, show_progress="minimal", api_visibility="private"
        )  # fmt: skip


def opened(study: type[Study], path: str | None) -> list[Any]:
    """Return an update a knob, the sentence and an empty place; a file that cannot be read changes no knob."""
    values, said = {}, ""
    try:
        values, sentence = study.opened(_read(path))
        said = f'<p class="st-needs">{say(sentence)}</p>'
    except ValueError as error:
        gr.Warning(say(error), title="This file was not opened")
    updates: list[Any] = [values.get(control.name, gr.skip()) for control in controls(study)]
    return [*updates, said or gr.skip(), None]


def _read(path: str | None) -> bytes:
    try:
        with Path(path or "").open("rb") as stream:
            return stream.read(MOST)
    except OSError as error:
        raise ValueError("this file could not be read: drop it again") from error
