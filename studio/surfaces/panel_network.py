"""A network that grows or is pruned in a notebook, with the scripts for its sliders, which plain HTML never runs."""

__all__ = ["NetworkView"]

import anywidget
import traitlets

from studio.render.network import SCRIPT as GROWING
from studio.render.pruning import SCRIPT as PRUNING

# The text comes from the renderer, which escapes every word of a person.
MODULE = f"""
{GROWING}
{PRUNING}
function render({{model, el}}) {{
  const refreshes = [studioNetwork(el), studioPruning(el)];
  const draw = () => {{
    el.innerHTML = model.get('html');
    refreshes.forEach(refresh => refresh());
  }};
  model.on('change:html', draw);
  draw();
}}
export default {{render}};
"""


class NetworkView(anywidget.AnyWidget):
    """Shows `html`, as drawn by `network_html` and `pruning_html`, and keeps what was chosen in it when it changes."""

    _esm = MODULE
    html = traitlets.Unicode("").tag(sync=True)
