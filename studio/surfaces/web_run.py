"""A run as a page sees it: scenes become drawings, frames become a stream of what is new on the page."""

__all__ = [
    "CHARTS",
    "NAMED_ERRORS",
    "Shown",
    "empty_chart",
    "file_of",
    "overlaid",
    "progress",
    "sentence",
    "shown",
    "study_of",
    "texts_of",
]

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, assert_never

import plotly.graph_objects as go

from studio.core.controls import controls, knobs
from studio.core.snapshots import Snapshot
from studio.desk.desk import Desk, Frame
from studio.desk.store import Row
from studio.files.archive import Recipe, png_bytes
from studio.render.charts import curves_figure, points_figure
from studio.render.matrix import matrix_html
from studio.render.members import members_html
from studio.render.molecules import molecules_html
from studio.render.molecules_text import sdf_text, xyz_text
from studio.render.network import network_html
from studio.render.pruning import pruning_html
from studio.render.raster import still
from studio.scenes import Curves, Images, Matrix, Members, Molecules, Network, Points, Pruning, Scene
from studio.studies.study import Study
from studio.surfaces.web_handout import handout
from studio.surfaces.web_html import alert_html, pictures_html, status_html, waiting_html, working_html

S = TypeVar("S", bound=Study)
# How many charts a study may draw, and how high they are.
CHARTS = 5
CHART_HEIGHT = 300
NAMED_ERRORS = (ValueError, MemoryError)
PER_SECOND, BUDGET = 8.0, 48.0
REST = 3.0
KEPT = 16
# What was drawn last, by run and frame: many watchers of one run share it.
_drawings: dict[tuple[str, int, str], "Shown"] = {}
_drawing = threading.Lock()
_watching: set[object] = set()


@dataclass(frozen=True, eq=False)
class Shown:
    """What is on the page: pictures, members, networks, molecules as HTML, a plane and charts as figures, and status.

    `network` holds the tables of percentages and the networks that are pruned, too.
    """

    pictures: str = ""
    members: str = ""
    network: str = ""
    molecules: str = ""
    plane: go.Figure | None = None
    charts: tuple[go.Figure, ...] = ()
    status: str = ""
    frame: Frame | None = None
    scenes: tuple[Scene, ...] = field(default=())
    over: bool = False


def study_of(study: type[S], values: Sequence[object]) -> S:
    """Return the study that the values of a page's knobs describe, in the order of its controls.

    A value out of bounds, or an empty number, is a `ValueError` that names the knob.
    """
    found = {}
    for control, value in zip(controls(study), values, strict=True):
        if value is None and control.kind is str:
            value = ""
        if value is None:
            raise ValueError(f"{control.knob.label} is empty: enter a value, for example {control.default}")
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
        if control.kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        found[control.name] = value
    return study(**found)


def empty_chart() -> go.Figure:
    """Return axes without a curve: they hold the place, and let the browser load what draws charts."""
    note = {"text": "The curve appears here.", "showarrow": False, "font": {"color": "#64748b"}}
    figure = go.Figure().update_layout(template="plotly_white", height=CHART_HEIGHT, annotations=[note], autosize=True)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.update_layout(margin={"l": 16, "r": 16, "t": 16, "b": 16}, font={"family": "system-ui, sans-serif"})


def file_of(row: Row, study: Study, scenes: tuple[Scene, ...]) -> Path | None:
    """Hand out the exact picture with its recipe and return its path; None where a study draws none."""
    pixels = still(scenes)
    if pixels is None:
        return None
    return handout(f"{study.name}-{study.seed}.png", png_bytes(pixels, recipe_of(row, study)))


def texts_of(study: Study, scenes: tuple[Scene, ...]) -> tuple[Path | None, Path | None]:
    """Hand out the conformers as SDF and as XYZ and return their paths; None where a study draws no molecules."""
    found: list[Path | None] = []
    for kind, write in (("sdf", sdf_text), ("xyz", xyz_text)):
        try:
            text = "".join(write(scene) for scene in scenes if isinstance(scene, Molecules))
        except ValueError:
            text = ""
        found.append(handout(f"{study.name}-{study.seed}.{kind}", text.encode()) if text else None)
    return found[0], found[1]


def recipe_of(row: Row, study: Study) -> Recipe:
    """Return the recipe of a run: its study under the version that ran it."""
    return Recipe(study.name, row.version, knobs(study))


def shown(study: Study, frame: Frame, label: str = "") -> Shown:
    """Return what a page shows for one frame of a run; a frame that was drawn before is not drawn again."""
    key = (frame.row.id, frame.row.frame, label)
    with _drawing:
        if key not in _drawings:
            while len(_drawings) >= KEPT:
                _drawings.pop(next(iter(_drawings)))
            _drawings[key] = drawn(study, frame.row, frame.snapshot, label)
        drawing = _drawings[key]
    return replace(drawing, status=status_html(frame, label), frame=frame, over=frame.ended)


def drawn(study: Study, row: Row, snapshot: Snapshot, label: str = "", place: str = "") -> Shown:
    """Return the drawings of one snapshot of a run; `place` tells two drawings of one run on a page apart."""
    pictures, members, network, molecules, plane, charts = "", "", "", "", None, []
    scenes = study.view(snapshot)
    for scene in scenes:
        match scene:
            case Images():
                pictures += pictures_html(scene, recipe_of(row, study), label)
            case Points():
                plane = points_figure(scene)
            case Members():
                members = members_html(scene, f"{place}{row.id[:8]}")
            case Network():
                named = replace(scene, title=_labelled(label, scene.title))
                network += network_html(named, f"{place}{row.id[:8]}")
            case Matrix():
                network += matrix_html(replace(scene, title=_labelled(label, scene.title)))
            case Pruning():
                named = replace(scene, title=_labelled(label, scene.title))
                network += pruning_html(named, f"{place}{row.id[:8]}")
            case Molecules():
                named = replace(scene, title=_labelled(label, scene.title))
                molecules += molecules_html(named, f"{place}{row.id[:8]}")
            case Curves():
                charts.append(curves_figure(scene).update_layout(height=CHART_HEIGHT))
            case _:
                assert_never(scene)
    return Shown(pictures, members, network, molecules, plane, tuple(charts), scenes=scenes)


def _labelled(label: str, title: str) -> str:
    return f"{label}: {title}" if label else title


async def progress(desk: Desk, run_id: str) -> AsyncGenerator[Shown, None]:
    """Yield what the page shows of a run, waiting or going on or ended, and then of the plain run beside it.

    The newest, eight times a second or less often where many watch. An error becomes a sentence in the status line.
    Closing this leaves the run as it is.
    """
    newest, me = Shown(status=working_html()), object()
    _watching.add(me)
    try:
        async for newest in _frames(desk, run_id):
            yield replace(newest, over=False)
        plain = None if newest.frame is None or newest.frame.stopped else desk.beside(run_id)
        if plain is not None:
            main = newest
            async for newest in _beside(desk, plain, main):
                yield newest
        if newest.frame is None:
            newest = replace(newest, status=alert_html(_nothing(desk.row(run_id))))
        yield replace(newest, over=True)
    except Exception as error:
        yield replace(newest, status=alert_html(sentence(error)), over=True)
    finally:
        _watching.discard(me)


async def _beside(desk: Desk, plain: Row, main: Shown) -> AsyncGenerator[Shown, None]:
    """Yield the frames of the plain run, drawn beside the finished main one."""
    ended = main
    async for frame in _frames(desk, plain.id, "Plain baseline"):
        if frame.frame is None:
            yield replace(main, status=frame.status, over=False)
            continue
        ended = replace(
            main,
            pictures=main.pictures + frame.pictures,
            members=_compared(plain.beside, main.scenes, frame.scenes),
            network=main.network + frame.network,
            molecules=main.molecules + frame.molecules,
            charts=overlaid(main.scenes, frame.scenes),
            status=frame.status if not frame.over else status_html(main.frame) if main.frame else frame.status,
            over=False,
        )
        yield ended
    yield replace(ended, status=status_html(main.frame) if main.frame else ended.status)


async def _frames(desk: Desk, run_id: str, label: str = "") -> AsyncGenerator[Shown, None]:
    """Yield drawings of a run as they come; before the first, how long the wait may be."""
    study, newest, told = desk.study(desk.row(run_id)), None, ""
    async for frame in desk.follow(run_id, min(PER_SECOND, BUDGET / len(_watching))):
        if frame is not None:
            began = time.monotonic()
            newest = await asyncio.to_thread(shown, study, frame, label)
            yield newest
            # Drawing takes a quarter of the time at most: it shares the cores with the run.
            await asyncio.sleep(0 if frame.ended else REST * (time.monotonic() - began))
        elif newest is None:
            waits = desk.row(run_id).state == "queued"
            status = waiting_html(*desk.place(run_id)) if waits else working_html(label)
            if status != told:
                told = status
                yield Shown(status=status)


def _nothing(row: Row) -> str:
    if row.state == "interrupted":
        return "It was interrupted before its first step: press Run again."
    return row.error or "It was stopped before the first step: there is nothing to keep."


def _compared(run_id: str, main: tuple[Scene, ...], plain: tuple[Scene, ...]) -> str:
    """Return the members of the main run with the plain run's in grey among them."""
    own, other = (next((scene for scene in part if isinstance(scene, Members)), None) for part in (main, plain))
    return "" if own is None else members_html(own, run_id[:8], other)


def overlaid(main: tuple[Scene, ...], other: tuple[Scene, ...], word: str = "plain") -> tuple[go.Figure, ...]:
    """Return the charts of a run with another run's lines, dashed and named with a word, on the same axes.

    Charts that only the other run has follow at the end.
    """
    others = {scene.title: scene for scene in other if isinstance(scene, Curves)}
    figures = []
    for scene in (scene for scene in main if isinstance(scene, Curves)):
        twin = others.pop(scene.title, None)
        named = tuple(replace(series, name=f"{series.name}, {word}") for series in twin.series) if twin else ()
        figure = curves_figure(replace(scene, series=scene.series + named)).update_layout(height=CHART_HEIGHT)
        figure.update_traces(line_dash="solid")
        for series in named:
            figure.update_traces(line_dash="dash", selector={"name": series.name})
        figures.append(figure)
    return (*figures, *(curves_figure(scene).update_layout(height=CHART_HEIGHT) for scene in others.values()))


def sentence(error: Exception) -> str:
    """Return what a page says of an error; one of ours is logged and shown without its details."""
    if isinstance(error, KeyError):
        return "This run is not in this studio's store: it may have been deleted."
    if isinstance(error, MemoryError):
        return "There is not enough memory for this run: choose fewer points, copies or members."
    if isinstance(error, NAMED_ERRORS):
        return str(error)
    logging.getLogger(__name__).error("a run failed", exc_info=error)
    return f"The run failed ({type(error).__name__}); the details are in the terminal the studio was started from."
