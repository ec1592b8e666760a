"""Conformers in three dimensions: turned by hand, laid over each other, and played as they were optimised.

The HTML is the same on a page, in a notebook and in a page taken along. The script beside this file mounts 3Dmol.js,
which ships with the studio, once, and then only moves what it shows: the camera and every choice stay.
"""

__all__ = ["KEEP_MOLECULES", "SCRIPT", "VIEWER", "molecules_html", "view_json", "viewer_script"]

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studio.render.molecules_picture import ELEMENTS, OTHER, energy_colours, orientation
from studio.render.molecules_text import clean, group_word, kekulised, ranked
from studio.scenes import Molecules

# More than so many coordinates of a path are not sent: every other moment, or fewer, then tells the story.
MOST = 240_000
TITLE, CAPTION = 200, 200
GAMMA = 0.62
STYLES = {"stick": "Sticks", "ball": "Balls and sticks", "sphere": "Spheres", "line": "Lines"}
STYLE = f"<style>{Path(__file__).with_suffix('.css').read_text(encoding='utf-8')}</style>"
# Defines `studioMolecules(root, load)`: it wires the viewers below an element and returns what shows a new text there.
# `load` returns a promise of 3Dmol.js.
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# The name under which a page's own server hands out 3Dmol.js.
VIEWER = "3Dmol-min.js"
# On a page the script is loaded when there is something to show; the text is taken from `value`, not put into the page.
KEEP_MOLECULES = f"""{SCRIPT}
const load = () => globalThis.studioViewer ??= new Promise((found, lost) => {{
  const script = document.createElement('script');
  script.src = new URL({VIEWER!r}, document.baseURI).href;
  script.onload = () => found(globalThis.$3Dmol);
  script.onerror = lost;
  document.head.append(script);
}});
const show = studioMolecules(element, load);
watch('value', () => show(props.value || ''));
show(props.value || '');
"""
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def viewer_script() -> str:
    """Return 3Dmol.js as it ships with the studio; a `ValueError` where it did not."""
    from studio.files.weights import assets_folder

    path = assets_folder() / "3dmol" / VIEWER
    if not path.is_file():
        raise ValueError(f"the molecule viewer is not in {path.parent}: take a complete checkout or wheel")
    return path.read_text(encoding="utf-8")


def molecules_html(scene: Molecules, group: str) -> str:
    """Return the viewer of the conformers with its controls, and their table, whose rows choose one.

    `group` tells the molecules of one page apart and names the members picture that chooses with them. Complete
    without a script but for the 3-D view.
    """
    n, moments = len(scene.positions), len(scene.path)
    kinds = [name for name, here in (("none", n == 0), ("single", n == 1), ("still", moments < 2 or n == 0)) if here]
    title = _say(clean(scene.title, TITLE))
    return (
        f'{STYLE}<section class="st-mol{"".join(f" st-mol-{kind}" for kind in kinds)}" data-group="{_say(group)}" '
        f"data-mol='{view_json(scene)}'><div data-part=\"head\"><h4>{title}</h4>"
        f'<p class="st-mol-note">{_summary(scene)}</p></div><div class="st-mol-body"><div class="st-mol-main">'
        f"{_stage(scene)}{_controls()}</div>"
        f'<div class="st-mol-side" data-part="table">{_table(scene, group) if n > 1 else ""}</div></div></section>'
    )


def view_json(scene: Molecules) -> str:
    """Return what the viewer needs as JSON that can stand in a script or in an attribute in single quotes.

    Lengths are thousandths of an angstrom, flat a conformer; energies that are no number are null; `order` has the
    conformers from the lowest energy up, `turn` is the quaternion of the first look.
    """
    colours = [_lit(colour) for colour in energy_colours(scene.energies).tolist()]
    tints = {symbol: _lit(ELEMENTS.get(symbol, OTHER)) for symbol in sorted(set(scene.symbols))}
    data = {
        "symbols": list(scene.symbols),
        "tints": tints,
        "bonds": scene.bonds.tolist(),
        "orders": kekulised(scene).tolist(),
        "positions": _thousandths(scene.positions),
        "path": [_thousandths(moment) for moment in _thinned(scene.path)],
        "energies": [round(energy, 4) if math.isfinite(energy) else None for energy in scene.energies.tolist()],
        "colours": colours,
        "order": ranked(scene).tolist(),
        "groups": scene.groups.tolist(),
        "captions": [clean(caption, CAPTION) for caption in scene.captions],
        "turn": _quaternion(orientation(scene)),
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _summary(scene: Molecules) -> str:
    """Return the formula, how many conformers and shapes there are, and in which force field."""
    n, shapes = len(scene.positions), len(np.unique(scene.groups)) if (scene.groups >= 0).all() else 0
    if not n:
        return "No conformer yet."
    known = f" in {shapes} {'shape' if shapes == 1 else 'shapes'}" if shapes else ""
    many = f"{n} conformers{known}" if n > 1 else "1 conformer"
    lowest = f"lowest energy {scene.lowest:.2f} kcal/mol".replace("-", "−") if math.isfinite(scene.lowest) else ""
    field = _say(clean(scene.field, TITLE))
    end = ", ".join(part for part in (field, lowest) if part)
    return f"<bdi>{_formula(scene)}</bdi> · {many}{f' · {end}' if end else ''}"


def _formula(scene: Molecules) -> str:
    """Return the sum formula, carbon and hydrogen first."""
    names = sorted(set(scene.symbols), key=lambda symbol: ({"C": 0, "H": 1}.get(symbol, 2), symbol))
    counts = ((symbol, scene.symbols.count(symbol)) for symbol in names)
    charge = int(scene.charges.sum())
    sign = f"{abs(charge) if abs(charge) > 1 else ''}{'+' if charge > 0 else '−'}" if charge else ""
    parts = "".join(f"{symbol}{str(count).translate(SUBSCRIPTS) if count > 1 else ''}" for symbol, count in counts)
    return f"{_say(parts)}{f'<sup>{sign}</sup>' if sign else ''}"


def _stage(scene: Molecules) -> str:
    """Return the place of the 3-D view, the legend of its colours, and the line about the chosen conformer."""
    there = scene.energies[np.isfinite(scene.energies)]
    most = f"{float(there.max()):.1f}" if len(there) else ""
    bar = ",".join(f"rgb({r} {g} {b})" for r, g, b in energy_colours(np.linspace(0.0, 1.0, 7)).tolist())
    legend = f'0<i style="background:linear-gradient(90deg,{bar})"></i>{most} kcal/mol above the lowest'
    words = "3-D view: drag to turn, arrow keys for the other conformers, Shift with arrow keys to turn"
    return (
        f'<div class="st-mol-stage" tabindex="0" role="group" aria-label="{words}"><p class="st-mol-wait">The 3-D view '
        f'needs JavaScript.</p><div class="st-mol-legend" data-part="legend">{legend}</div>'
        '<button type="button" data-act="reset" class="st-mol-quiet">Reset view</button></div>'
        '<p class="st-mol-words" aria-live="polite"></p>'
    )


def _controls() -> str:
    """Return the controls, which stay hidden until a script works them."""
    looks = "".join(f'<option value="{value}">{name}</option>' for value, name in STYLES.items())
    return (
        '<div class="st-mol-bar st-mol-quiet"><div class="st-mol-choose">'
        '<button type="button" data-act="back" aria-label="Before" title="The conformer before">‹</button>'
        '<input type="range" class="st-mol-rank" min="0" max="0" value="0" aria-label="Conformer, by rank of energy">'
        '<button type="button" data-act="on" aria-label="Next" title="The next conformer">›</button></div>'
        '<div class="st-mol-looks"><span class="st-mol-many" role="group" aria-label="How many conformers">'
        '<button type="button" data-act="one" aria-pressed="true">One</button>'
        '<button type="button" data-act="all" aria-pressed="false">All</button></span>'
        f'<select class="st-mol-style" aria-label="Style">{looks}</select>'
        '<label><input type="checkbox" class="st-mol-hydrogens" checked>Hydrogens</label></div>'
        '<div class="st-mol-film"><button type="button" data-act="play" title="Play the optimisation">Play</button>'
        '<input type="range" class="st-mol-moment" min="0" max="0" value="0" aria-label="Moment of the optimisation">'
        "<output></output></div></div>"
    )


def _table(scene: Molecules, group: str) -> str:
    """Return the conformers from the lowest up; a row is chosen by its radio button or anywhere on it."""
    colours, rows = energy_colours(scene.energies).tolist(), []
    captions = (*scene.captions, *[""] * (len(scene.positions) - len(scene.captions)))
    for place, index in enumerate(ranked(scene).tolist(), start=1):
        energy = float(scene.energies[index])
        red, green, blue = colours[index]
        number = f"{energy:.2f}" if math.isfinite(energy) else "–"
        told = _say(clean(captions[index], CAPTION) or f"rank {place}")
        rows.append(
            f'<tr data-conformer="{index}"><td><label><input type="radio" name="conformer-{_say(group)}" '
            f'value="{index}" aria-label="{told}">{place}</label></td>'
            f'<td><i style="background:rgb({red} {green} {blue})"></i>{number}</td>'
            f"<td>{group_word(int(scene.groups[index]))}</td></tr>"
        )
    return (
        '<div class="st-mol-scroll"><table><thead><tr><th scope="col">rank</th><th scope="col">above the lowest'
        '<small>kcal/mol</small></th><th scope="col">shape</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _thousandths(positions: np.ndarray) -> list[list[int]]:
    """Return conformers as whole thousandths of an angstrom; what is no number lies at the origin."""
    places = np.nan_to_num(positions, nan=0.0, posinf=0.0, neginf=0.0)
    return np.rint(1000 * places).astype(int).reshape(len(positions), 3 * positions.shape[1]).tolist()


def _thinned(path: np.ndarray) -> np.ndarray:
    """Return so many moments of a path, evenly chosen with both ends, that a page can hold them."""
    each = max(1, int(np.prod(path.shape[1:])))
    kept = max(2, MOST // each)
    return path[np.unique(np.linspace(0, len(path) - 1, kept).round().astype(int))] if len(path) > kept else path


def _lit(colour: Sequence[int]) -> str:
    """Return a colour as the viewer wants it: brighter, as its light takes that away again."""
    return "#" + "".join(f"{round(255 * (part / 255) ** GAMMA):02x}" for part in colour)


def _quaternion(turn: np.ndarray) -> list[float]:
    """Return a rotation as x, y, z, w: the eigenvector of the largest eigenvalue of a symmetric matrix of four.

    Source: I. Y. Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, 2000.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = turn.tolist()
    matrix = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    values = np.linalg.eigh(matrix)[1][:, -1]
    return (values * (-1.0 if values[3] < 0 else 1.0)).round(6).tolist()


def _say(text: object) -> str:
    return html.escape(str(text), quote=True)
