"""A file of the visitor's own on a study's page: chosen, read by the study, and shown as knobs."""

__all__ = ["file_button", "opened", "wire_file"]

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studio.core.controls import Value, controls
from studio.studies.study import Study
from studio.surfaces.web_gradio import Component, gr
from studio.surfaces.web_html import say


def file_button(study: type[Study]) -> gr.UploadButton | None:
    """Return the button that opens a file, inside the open column; None for a study that opens none."""
    if not study.files:
        return None
    kinds = ", ".join(kind.removeprefix(".").upper() for kind in study.files)
    return gr.UploadButton(f"Open a file ({kinds})", file_types=list(study.files), size="sm", elem_classes="st-open")


def wire_file(button: gr.UploadButton | None, study: type[Study], knobs: Sequence[Component]) -> None:
    """Let the chosen file set the knobs that it says something about, and say what was read of it."""
    if button is not None:
        # Through the queue, as only there Gradio passes on what `gr.Info` and `gr.Warning` say.
        button.upload(
            partial(opened, study), button, list(knobs), show_progress="minimal", concurrency_limit=None,
            api_visibility="private",
        )  # fmt: skip


def opened(study: type[Study], path: str | None) -> list[Any]:
    """Return an update a knob; a file that cannot be read gives a warning and changes none."""
    values: dict[str, Value] = {}
    try:
        values, sentence = study.opened(_read(path, study.largest))
        gr.Info(say(sentence), title="Opened")
    except ValueError as error:
        gr.Warning(say(error), title="This file was not opened")
    return [values.get(control.name, gr.skip()) for control in controls(study)]


def _read(path: str | None, largest: int) -> bytes:
    try:
        with Path(path or "").open("rb") as stream:
            data = stream.read(largest + 1)
    except OSError as error:
        raise ValueError("this file could not be read: choose it again") from error
    if len(data) > largest:
        raise ValueError(f"this file is too large: at most {largest / 2**20:,.0f} MB are opened")
    return data
