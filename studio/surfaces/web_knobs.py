"""Controls into Gradio components: a textbox for words, sliders and numbers for ranges, buttons for examples."""

__all__ = ["component", "examples"]

import json
import math

from studio.core.controls import Choice, Control, Range, Words
from studio.surfaces.web_gradio import Component, gr

WIDE, RADIO = 5000, 4


def component(control: Control) -> Component:
    """Return the component for one control, at its default."""
    label, info, bound = control.knob.label, control.knob.help or None, control.bound
    if control.kind is bool:
        return gr.Checkbox(bool(control.default), label=label, info=info)
    if isinstance(bound, Choice):
        picker = gr.Radio if len(bound.options) <= RADIO else gr.Dropdown
        return picker(list(bound.options), value=str(control.default), label=label, info=info)
    if isinstance(bound, Range):
        return _number(control, bound)
    limit = bound.limit if isinstance(bound, Words) else None
    return gr.Textbox(
        str(control.default), label=label, info=info, lines=2, max_lines=6, max_length=limit, elem_classes="st-words"
    )


def examples(control: Control, box: Component) -> None:
    """Put the examples of free text under its box as small buttons that need no answer of the server."""
    if not isinstance(control.bound, Words) or not control.bound.examples:
        return
    with gr.Row(elem_classes="st-chips"):
        for name, example in zip(control.bound.names or control.bound.examples, control.bound.examples, strict=True):
            chip = gr.Button(name, size="sm", min_width=0, elem_classes="st-chip")
            chip.click(None, None, box, js=f"() => {json.dumps(example)}", api_visibility="private")


def _number(control: Control, bound: Range) -> Component:
    label, info, span = control.knob.label, control.knob.help, bound.high - bound.low
    whole = control.kind is int
    if bound.log or (whole and span > WIDE):
        between = "" if control.name == "seed" else f"from {bound.low:g} to {bound.high:g}"
        text = "; ".join(part for part in (info, between) if part)
        step = 1 if whole else bound.low
        return gr.Number(control.default, precision=0 if whole else None, step=step, label=label, info=text)  # type: ignore[arg-type]
    step = 1 if whole else 10.0 ** (math.floor(math.log10(span)) - 2)
    return gr.Slider(bound.low, bound.high, value=control.default, step=step, label=label, info=info or None)  # type: ignore[arg-type]
