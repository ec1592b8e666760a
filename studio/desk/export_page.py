"""A kept run as one page that needs nothing else: its film, charts, trade-off, knobs, papers and recipe."""

__all__ = ["page_html"]

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from studio.core.controls import controls
from studio.core.snapshots import Snapshot
from studio.desk.store import Row
from studio.files.archive import Recipe, png_bytes, recipe_text
from studio.render.charts import curves_figure, points_figure
from studio.render.film import LARGEST, fitted
from studio.render.matrix import matrix_html
from studio.render.members import members_html
from studio.render.molecules import SCRIPT as MOLECULES_SCRIPT
from studio.render.molecules import molecules_html, viewer_script
from studio.render.network import SCRIPT as NETWORK_SCRIPT
from studio.render.network import network_html
from studio.render.pruning import SCRIPT as PRUNING_SCRIPT
from studio.render.pruning import pruning_html
from studio.scenes import Curves, Images, Matrix, Members, Molecules, Network, Points, Pruning, Scene
from studio.studies.study import Study

HERE = Path(__file__)
STYLE = HERE.with_suffix(".css").read_text(encoding="utf-8")
SCRIPT = HERE.with_suffix(".js").read_text(encoding="utf-8")
MOUNT = "studioMolecules(document.body, async () => globalThis.$3Dmol);"
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
{data}
{scripts}
</body>
</html>
"""


def page_html(
    study: Study, row: Row, snapshot: Snapshot, scenes: Sequence[Scene], film: Sequence[tuple[int, np.ndarray]]
) -> str:
    """Return a page of a run: `scenes` are those of its last snapshot, `film` the steps and pictures on the way.

    The page holds everything it shows, its policy forbids every request and every script but its own, and what came
    from a person is escaped.
    """
    figures = [_figure(scene) for scene in scenes if isinstance(scene, Curves | Points)]
    body = [
        _header(study, row, snapshot), _molecules(scenes), _stage(scenes, film, snapshot), _networks(scenes),
        _pruned(scenes), _tables(scenes), _charts(scenes), _knobs(study), _papers(study), _footer(row),
    ]  # fmt: skip
    frames = [{"step": _step(step, snapshot.total), "picture": _png(pixels)} for step, pixels in film]
    recipe = recipe_text(Recipe(row.study, row.version, row.knobs))
    data = (_data("recipe", recipe), _data("frames", json.dumps(frames)), _data("charts", f"[{','.join(figures)}]"))
    grown = [f"{NETWORK_SCRIPT}\nstudioNetwork(document.body);\n"] if _networks(scenes) else []
    pruned = [f"{PRUNING_SCRIPT}\nstudioPruning(document.body);\n"] if _pruned(scenes) else []
    turned = [viewer_script(), f"{MOLECULES_SCRIPT}\n{MOUNT}"] if _molecules(scenes) else []
    scripts = ([get_plotlyjs()] if figures else []) + grown + pruned + turned + [SCRIPT]
    return PAGE.format(
        policy=_policy(scripts),
        title=_say(f"{study.title}, seed {study.seed}"),
        style=STYLE,
        body="\n".join(part for part in body if part),
        data="\n".join(data),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy that allows no request, and no script but those of these very words."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    marks = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {marks}; base-uri 'none'; "
        "form-action 'none'"
    )


def _header(study: Study, row: Row, snapshot: Snapshot) -> str:
    done = row.state == "done"
    text = snapshot.outcome or (
        f"Done: {snapshot.step:,} steps." if done else f"{row.state.capitalize()} at {_step(snapshot.step, row.total)}."
    )
    return (
        f'<header><p class="quiet">Optimisation studio</p><h1>{_say(study.title)}</h1><p>{_say(study.summary)}</p>'
        f'<p class="outcome{"" if done else " early"}">{_say(text)}</p></header>'
    )


def _stage(scenes: Sequence[Scene], film: Sequence[tuple[int, np.ndarray]], snapshot: Snapshot) -> str:
    """Return the film and the trade-off pictures side by side."""
    parts = [_player(film, _captions(scenes), snapshot.total)] if film else []
    trades = [scene for scene in scenes if isinstance(scene, Members) and len(scene.losses)]
    parts += [f'<div class="card">{members_html(scene, str(index))}</div>' for index, scene in enumerate(trades)]
    return f'<section class="stage">{"".join(parts)}</section>' if parts else ""


def _molecules(scenes: Sequence[Scene]) -> str:
    """Return the viewers of the conformers; the page's script fills them."""
    shown = [scene for scene in scenes if isinstance(scene, Molecules)]
    return "".join(molecules_html(scene, str(index)) for index, scene in enumerate(shown))


def _networks(scenes: Sequence[Scene]) -> str:
    """Return the networks that grew; the page's script moves their sliders."""
    grown = [scene for scene in scenes if isinstance(scene, Network)]
    return "".join(f"<h2>Network</h2>{network_html(scene, str(index))}" for index, scene in enumerate(grown))


def _pruned(scenes: Sequence[Scene]) -> str:
    """Return the networks that were pruned; the page's script moves their sliders."""
    found = [scene for scene in scenes if isinstance(scene, Pruning)]
    return "".join(f"<h2>Pruning</h2>{pruning_html(scene, str(index))}" for index, scene in enumerate(found))


def _tables(scenes: Sequence[Scene]) -> str:
    """Return the tables of percentages below one heading."""
    tables = "".join(matrix_html(scene) for scene in scenes if isinstance(scene, Matrix))
    return f"<h2>Tables</h2>{tables}" if tables else ""


def _captions(scenes: Sequence[Scene]) -> str:
    images = [scene for scene in scenes if isinstance(scene, Images)]
    return " · ".join(images[0].captions) if images else ""


def _player(film: Sequence[tuple[int, np.ndarray]], caption: str, total: int) -> str:
    """Return the last picture with a slider and a button under it, which a single picture does without."""
    step, pixels = film[-1]
    height, width = pixels.shape[:2]
    hidden = "" if len(film) > 1 else " hidden"
    note = f"<figcaption>{_say(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="card film"><img id="picture" src="{_png(pixels)}" width="{width}" height="{height}" '
        f'alt="the picture of the run at the step chosen below"><div class="player"{hidden}>'
        '<button id="play" type="button">Play</button>'
        f'<input id="slider" type="range" min="0" max="{len(film) - 1}" value="{len(film) - 1}" aria-label="Step">'
        f'<output id="step" for="slider">{_step(step, total)}</output></div>{note}</figure>'
    )


def _charts(scenes: Sequence[Scene]) -> str:
    """Return the places where the page's script draws the charts, in the order of the scenes."""
    places = []
    for scene in scenes:
        if isinstance(scene, Curves | Points):
            name, kind = ("The plane", " plane") if isinstance(scene, Points) else (scene.title, "")
            place = f'<div class="chart{kind}" data-chart role="img" aria-label="{_say(name)}"></div>'
            places.append(f'<div class="card">{place}</div>')
    return f'<h2>Charts</h2><section class="charts">{"".join(places)}</section>' if places else ""


def _figure(scene: Curves | Points) -> str:
    """Return a chart as JSON; by the standard library, which takes any character."""
    figure = curves_figure(scene) if isinstance(scene, Curves) else points_figure(scene)
    return str(to_json(figure.update_layout(uirevision=None), engine="json"))


def _knobs(study: Study) -> str:
    """Return every knob and its value; those left at their default are pale."""
    rows = []
    for control in controls(type(study)):
        value = getattr(study, control.name)
        usual = ' class="usual"' if value == control.default else ""
        words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
        name = f'<th scope="row">{_say(control.knob.label)}</th>'
        rows.append(f"<tr{usual}>{name}<td><bdi>{_say(words)}</bdi></td></tr>")
    return f'<h2>Knobs</h2><table>{"".join(rows)}</table><p class="quiet">Pale values are the defaults.</p>'


def _papers(study: Study) -> str:
    items = [
        f'<li><a href="{_say(paper.link)}" target="_blank" rel="noopener noreferrer">{_say(paper.title)}</a> '
        f'<span class="quiet">{_say(paper.authors.replace(" and ", "; "))}, {paper.year}</span></li>'
        for paper in study.papers
    ]
    return f"<h2>Papers</h2><ul>{''.join(items)}</ul>" if items else ""


def _footer(row: Row) -> str:
    when = datetime.fromtimestamp(row.submitted, UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = (
        f"Run {row.id[:8]}", when, f"{row.seconds:.1f} s of work", f"on {row.device.upper()}" if row.device else "",
        f"studio {row.version}", f"SHA-256 of the last step {row.digest[:16]}" if row.digest else "",
    )  # fmt: skip
    return f'<footer class="quiet">{_say(" · ".join(part for part in parts if part))}</footer>'


def _step(step: int, total: int) -> str:
    return f"step {step:,} of {total:,}"


def _png(pixels: np.ndarray) -> str:
    small = fitted(pixels) if max(pixels.shape[:2]) > LARGEST else pixels
    return f"data:image/png;base64,{base64.b64encode(png_bytes(small)).decode()}"


def _data(name: str, text: str) -> str:
    """Return JSON as a block of data that no script of a page can leave."""
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def _say(text: object) -> str:
    return html.escape(str(text), quote=True)
