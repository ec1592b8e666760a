"""A run as a page sees it: scenes become drawings, frames become a stream of what is new on the page."""

__all__ = ["NAMED_ERRORS", "Shown", "Turn", "empty_chart", "file_of", "progress", "shown", "study_of"]

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, assert_never

import plotly.graph_objects as go

from studio import __version__
from studio.core.controls import controls, knobs
from studio.desk.local import Desk, Frame
from studio.files.archive import Recipe, png_bytes
from studio.render.charts import curves_figure, points_figure
from studio.render.raster import still
from studio.scenes import Curves, Images, Members, Points, Scene
from studio.studies.study import Study
from studio.surfaces.members_html import members_html
from studio.surfaces.web_html import alert_html, pictures_html, status_html, working_html

S = TypeVar("S", bound=Study)
CHART_HEIGHT = 300
NOTHING = "It was stopped before the first step: there is nothing to keep."
NAMED_ERRORS = (ValueError, MemoryError)


@dataclass(frozen=True, eq=False)
class Turn:
    """A run handed in: its id at the desk, its study, and the plain study to run after it, if one was asked for."""

    run_id: str
    study: Study
    after: Study | None = None


@dataclass(frozen=True, eq=False)
class Shown:
    """What is on the page: pictures and members as HTML, a plane and charts as figures, the status, the frame."""

    pictures: str = ""
    members: str = ""
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


def file_of(study: Study, scenes: tuple[Scene, ...], folder: Path) -> Path | None:
    """Write the exact picture with its recipe into a folder and return its path; None where a study draws none."""
    pixels = still(scenes)
    if pixels is None:
        return None
    path = folder / f"{study.name}-{study.seed}.png"
    path.write_bytes(png_bytes(pixels, recipe_of(study)))
    return path


def recipe_of(study: Study) -> Recipe:
    """Return the recipe of a study under this version."""
    return Recipe(study.name, __version__, knobs(study))


def shown(study: Study, frame: Frame, label: str = "") -> Shown:
    """Return what a page shows for one frame of a run."""
    pictures, members, plane, charts = "", "", None, []
    scenes = study.view(frame.snapshot)
    for scene in scenes:
        match scene:
            case Images():
                pictures += pictures_html(scene, recipe_of(study), label)
            case Points():
                plane = points_figure(scene)
            case Members():
                members = members_html(scene, study.name)
            case Curves():
                charts.append(curves_figure(scene).update_layout(height=CHART_HEIGHT))
            case _:
                assert_never(scene)
    return Shown(pictures, members, plane, tuple(charts), status_html(frame, label), frame, scenes, frame.ended)


def progress(desk: Desk, turn: Turn, least: float = 0.0, owner: str = "") -> Generator[Shown | Turn, None, None]:
    """Yield what the page shows, the newest at most eight times a second, through the run and the plain one after it.

    A `Turn` in between says that the desk works on that run from now on. An error becomes a sentence in the status
    line. Closing this closes the run.
    """
    newest = Shown()
    try:
        for newest in _frames(desk, turn.run_id, turn.study, least):
            yield replace(newest, over=newest.over and turn.after is None)
        stopped = newest.frame is None or newest.frame.stopped
        if turn.after is not None and not stopped:
            plain = Turn(desk.submit(turn.after, owner=owner), turn.after)
            yield plain
            yield from _beside(desk, plain, newest, least)
        elif not newest.over:
            yield replace(newest, status=alert_html(NOTHING), over=True)
    except Exception as error:
        yield replace(newest, status=alert_html(_sentence(error)), over=True)


def _beside(desk: Desk, plain: Turn, main: Shown, least: float) -> Generator[Shown, None, None]:
    """Yield the frames of the plain run, drawn beside the finished main one."""
    yield replace(main, status=working_html("Plain baseline"), over=False)
    ended = main
    for frame in _frames(desk, plain.run_id, plain.study, least, "Plain baseline"):
        ended = replace(
            main,
            pictures=main.pictures + frame.pictures,
            members=_compared(plain.study, main.scenes, frame.scenes),
            charts=_overlaid(main.scenes, frame.scenes),
            status=frame.status if not frame.over else status_html(main.frame) if main.frame else frame.status,
            over=frame.over,
        )
        yield ended
    if not ended.over:
        yield replace(ended, status=status_html(main.frame) if main.frame else ended.status, over=True)


def _frames(desk: Desk, run_id: str, study: Study, least: float, label: str = "") -> Generator[Shown, None, None]:
    with closing(desk.watch(run_id, least=least)) as frames:
        for frame in frames:
            yield shown(study, frame, label)


def _compared(study: Study, main: tuple[Scene, ...], plain: tuple[Scene, ...]) -> str:
    """Return the members of the main run with the plain run's in grey among them."""
    own, other = (next((scene for scene in part if isinstance(scene, Members)), None) for part in (main, plain))
    return "" if own is None else members_html(own, study.name, other)


def _overlaid(main: tuple[Scene, ...], plain: tuple[Scene, ...]) -> tuple[go.Figure, ...]:
    """Return the charts of the main run with the plain run's lines dashed on the same axes."""
    others = [scene for scene in plain if isinstance(scene, Curves)]
    figures = []
    for index, scene in enumerate(scene for scene in main if isinstance(scene, Curves)):
        extra = others[index].series if index < len(others) else ()
        named = tuple(replace(series, name=f"{series.name}, plain") for series in extra)
        figure = curves_figure(replace(scene, series=scene.series + named)).update_layout(height=CHART_HEIGHT)
        figure.update_traces(line_dash="solid")
        for series in named:
            figure.update_traces(line_dash="dash", selector={"name": series.name})
        figures.append(figure)
    return tuple(figures)


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):
        return "This run has ended already: press Run again."
    if isinstance(error, MemoryError):
        return "There is not enough memory for this run: choose fewer points, copies or members."
    if isinstance(error, NAMED_ERRORS):
        return str(error)
    logging.getLogger(__name__).error("a run failed", exc_info=error)
    return f"The run failed ({type(error).__name__}); the details are in the terminal the studio was started from."
