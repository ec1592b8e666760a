"""A growing network in a notebook: its HTML with the script for its sliders, which a plain HTML widget never runs."""

__all__ = ["NetworkView"]

import anywidget
import traitlets

from studio.render.network import SCRIPT

# The text comes from the renderer, which escapes every word of a person.
MODULE = f"""
{SCRIPT}
function render({{model, el}}) {{
  const refresh = studioNetwork(el);
  const draw = () => {{
    el.innerHTML = model.get('html');
    refresh();
  }};
  model.on('change:html', draw);
  draw();
}}
export default {{render}};
"""


class NetworkView(anywidget.AnyWidget):
    """Shows `html`, as drawn by `network_html`, and keeps what was chosen in it when it changes."""

    _esm = MODULE
    html = traitlets.Unicode("").tag(sync=True)
