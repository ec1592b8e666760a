"""Conformers in a notebook: the studio's own viewer as a widget, and a py3Dmol view, both without any request."""

__all__ = ["MODULE", "MoleculeView", "py3dmol_view"]

import base64
from dataclasses import replace
from typing import Any

import anywidget
import traitlets

from studio.render.molecules import SCRIPT, viewer_script
from studio.render.molecules_text import ranked, sdf_text
from studio.scenes import Molecules

# 3Dmol.js is given a module of its own to put itself in, whatever loaders a notebook has. The text comes from the
# renderer, which escapes every word of a person.
MODULE = f"""
{SCRIPT}
const load = () => globalThis.studioViewer ??= Promise.resolve((function (module, exports) {{
{viewer_script()}
return module.exports;
}})({{exports: {{}}}}, {{}}));
function render({{model, el}}) {{
  const show = studioMolecules(el, load);
  const draw = () => show(model.get('html'));
  model.on('change:html', draw);
  draw();
}}
export default {{render}};
"""


class MoleculeView(anywidget.AnyWidget):
    """Shows `html`, as drawn by `molecules_html`; the camera and what was chosen stay when it changes."""

    _esm = MODULE
    html = traitlets.Unicode("").tag(sync=True)


def py3dmol_view(scene: Molecules, width: int = 640, height: int = 480) -> Any:
    """Return a py3Dmol view of the conformers, the lowest one as sticks and the others as lines.

    It carries 3Dmol.js with it and asks for nothing; no title goes into its script. Raises `ValueError` where py3Dmol
    is not installed or there is no conformer.
    """
    try:
        import py3Dmol
    except ImportError as error:
        raise ValueError("this view needs the py3Dmol package: pip install py3Dmol") from error
    if not len(scene.positions):
        raise ValueError("there is no conformer to show yet: run the study first")
    code = base64.b64encode(viewer_script().encode()).decode()
    view = py3Dmol.view(width=width, height=height, js=f"data:text/javascript;base64,{code}")
    # Titles and SMILES stay out: py3Dmol would put them into its script as they are.
    plain = replace(scene, title="", smiles="", field="")
    view.addModels(sdf_text(plain), "sdf", {"keepH": True})
    view.setStyle({}, {"line": {}})
    view.setStyle({"model": int(ranked(scene)[0])}, {"stick": {"radius": 0.15}})
    view.zoomTo()
    return view
