"""The notebook panel: the knobs of a study as widgets, its pictures live, and its result as a value."""

__all__ = ["Panel"]

import asyncio
import html
from typing import Any, assert_never

import ipywidgets as widgets

from studio import __version__
from studio.catalog import CATALOG
from studio.core.controls import Choice, Control, Range, Words, clamp, controls, knobs
from studio.core.snapshots import Snapshot
from studio.desk.desk import Desk, Frame
from studio.files.archive import Recipe, png_bytes
from studio.render.charts import curves_figure, drawn_as
from studio.render.matrix import matrix_html
from studio.render.members import members_html
from studio.render.molecules import molecules_html
from studio.render.network import network_html
from studio.render.pruning import pruning_html
from studio.render.raster import enlarge, still
from studio.scenes import Curves, Images, Matrix, Members, Molecules, Network, Points, Pruning, Scene
from studio.studies.study import Study
from studio.surfaces.panel_molecules import MoleculeView
from studio.surfaces.panel_network import NetworkView

WIDE = widgets.Layout(width="auto")
LABEL = {"description_width": "9em"}
COLUMNS = "repeat(auto-fit, minmax(min(100%, 380px), 1fr))"


class Panel:
    """A study in a notebook: `display(panel)` shows it, the button or `panel.run()` runs it.

    Every knob is also an attribute of `panel.study`; set one with `panel.set(steps=50)`.
    `panel.result` is the last snapshot, None before the first run. Runs are kept: `Panel.of(RUN)` shows one again, or
    goes on watching it, wherever it was started; a study written in the notebook itself runs inside the notebook.
    """

    def __init__(self, study: Study, per_second: float = 4.0) -> None:
        self._type = type(study)
        self._desk = desk_for(self._type)
        self._per_second = per_second
        self._run_id: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._shown: Frame | None = None
        self._ran = study
        self.result: Snapshot | None = None
        self.widgets: dict[str, Any] = {c.name: _widget(c, getattr(study, c.name)) for c in controls(self._type)}
        self._picture = widgets.Image(format="png", layout=widgets.Layout(width="320px", display="none"))
        self._chart = widgets.GridBox([], layout=widgets.Layout(grid_template_columns=COLUMNS, width="100%"))
        self._members = widgets.HTML("")
        self._network = NetworkView()
        self._molecules: MoleculeView | None = None
        self._status = widgets.HTML("")
        self._bar = widgets.IntProgress(description="ready", layout=WIDE, style=LABEL)
        self._go = widgets.Button(description="Run", button_style="primary", icon="play")
        self._hold = widgets.Button(description="Pause", icon="pause", disabled=True)
        self._one = widgets.Button(description="Step", icon="step-forward", disabled=True)
        self._end = widgets.Button(description="Stop", icon="stop", disabled=True)
        self._go.on_click(lambda _: self.start())
        self._hold.on_click(lambda _: self._toggle())
        self._one.on_click(lambda _: self._advance())
        self._end.on_click(lambda _: self.stop())
        self.layout = self._arrange()

    @classmethod
    def of(cls, run: str = "last") -> "Panel":
        """Return the panel of a run that was kept, by its id, the first letters of it, or 'last', and show it.

        One that has not ended goes on being watched beside the notebook. A `ValueError` where there is no such run.
        """
        desk = Desk(CATALOG)
        row = desk.store.named(run)
        panel = cls(desk.study(row))
        panel._run_id = row.id
        panel._follow()
        return panel

    @property
    def run_id(self) -> str | None:
        """Return the id of the run that is shown, None before the first one."""
        return self._run_id

    @property
    def study(self) -> Study:
        """Return the study the knobs describe now; numbers typed out of bounds are clamped."""
        return clamp(self._type, {name: widget.value for name, widget in self.widgets.items()})

    def set(self, **values: Any) -> None:
        """Set knobs by name; an unknown name is a `ValueError` that lists the known ones."""
        for name, value in values.items():
            if name not in self.widgets:
                raise ValueError(f"no knob is called {name!r}; there are {', '.join(self.widgets)}")
            self.widgets[name].value = value

    def run(self) -> Snapshot | None:
        """Run to the end in this cell, drawing on the way, and return the last snapshot."""
        self._begin()
        self._watch()
        return self.result

    def start(self) -> None:
        """Run beside the notebook: cells and buttons stay usable; without an event loop it runs in this cell."""
        if self._task is None or self._task.done():
            try:
                self._begin()
            except ValueError as error:
                self._status.value = _line(str(error))
                return
            self._follow()

    def stop(self) -> None:
        """Stop after the step at hand; `result` keeps what there is."""
        if self._run_id is not None:
            self._desk.stop(self._run_id)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": f"Panel({self._ran!r})"}
        if self._shown is not None:
            pixels = still(self._ran.view(self._shown.snapshot))
            if pixels is not None:
                bundle["image/png"] = png_bytes(pixels)
        return bundle | (self.layout._repr_mimebundle_(include=include, exclude=exclude) or {})

    def save(self) -> bytes:
        """Return the result's picture as a PNG with the recipe in it; a `ValueError` before the first run."""
        if self.result is None:
            raise ValueError("there is no result yet: call run() first")
        pixels = still(self._ran.view(self.result))
        if pixels is None:
            raise ValueError(f"{self._type.name} draws no picture")
        return png_bytes(pixels, Recipe(self._type.name, __version__, knobs(self._ran)))

    def _begin(self) -> None:
        self._ran = self.study
        self._run_id, self.result = self._desk.submit(self._ran), None
        self._status.value = _line(self._ran.forecast())

    def _follow(self) -> None:
        """Watch the run beside the notebook, or in this cell where there is no event loop."""
        try:
            self._task = asyncio.get_running_loop().create_task(self._beside())
        except RuntimeError:
            self._watch()

    def _watch(self) -> None:
        """Watch the run in this cell; interrupting the cell stops the run and keeps what there is."""
        assert self._run_id is not None
        self._enable(running=True)
        try:
            for frame in self._desk.watch(self._run_id, self._per_second):
                self._show(frame)
        except KeyboardInterrupt:
            self._desk.stop(self._run_id)
            for frame in self._desk.watch(self._run_id):
                self._show(frame)
        finally:
            self._enable(running=False)

    async def _beside(self) -> None:
        assert self._run_id is not None
        self._enable(running=True)
        try:
            async for frame in self._desk.follow(self._run_id, self._per_second):
                if frame is not None:
                    self._show(frame)
                elif self.result is None:
                    self._wait()
        except ValueError as error:
            self._status.value = _line(str(error))
        finally:
            self._enable(running=False)

    def _wait(self) -> None:
        row = self._desk.row(self._run_id or "")
        ahead = self._desk.place(row.id)[0] if row.state == "queued" else 0
        self._bar.description = f"{ahead} ahead" if ahead else "getting ready"

    def _enable(self, running: bool) -> None:
        self._go.disabled = running
        self._hold.disabled = self._one.disabled = self._end.disabled = not running
        self._hold.description = "Pause"

    def _toggle(self) -> None:
        if self._run_id is not None:
            held = self._hold.description != "Pause"
            (self._desk.go if held else self._desk.pause)(self._run_id)
            self._hold.description = "Pause" if held else "Resume"

    def _advance(self) -> None:
        if self._run_id is not None:
            self._desk.step(self._run_id)
            self._hold.description = "Resume"

    def _show(self, frame: Frame) -> None:
        snapshot = frame.snapshot
        self._shown, self.result = frame, snapshot
        self._bar.max, self._bar.value = max(snapshot.total, 1), snapshot.step
        self._bar.description = "done" if frame.ended else snapshot.phase
        scenes = self._ran.view(snapshot)
        self._draw(scenes)
        left = "" if frame.remaining is None or frame.ended else f", about {frame.remaining:.0f} s to go"
        self._status.value = _line(snapshot.outcome or f"step {snapshot.step} of {snapshot.total}{left}")

    def _draw(self, scenes: tuple[Scene, ...]) -> None:
        charts, network, molecules = [], "", ""
        for scene in scenes:
            match scene:
                case Images() | Points():
                    pixels = still((scene,))
                    if pixels is not None:
                        self._picture.value = png_bytes(enlarge(pixels, 320))
                        self._picture.layout.display = "block"
                case Members():
                    self._members.value = members_html(scene, self._type.name)
                case Network():
                    self._spread()
                    network += network_html(scene, self._type.name)
                case Matrix():
                    network += matrix_html(scene)
                case Pruning():
                    self._spread()
                    network += pruning_html(scene, self._type.name)
                case Molecules():
                    molecules += molecules_html(scene, self._type.name)
                case Curves():
                    charts.append(scene)
                case _:
                    assert_never(scene)
        self._network.html = network
        self._turn(molecules)
        self._plot(charts)

    def _turn(self, html: str) -> None:
        """Show molecules; their viewer, which is large, is made when there are some."""
        if html and self._molecules is None:
            self._molecules = MoleculeView()
            self._below.children = (self._molecules, *self._below.children)
        if self._molecules is not None:
            self._molecules.html = html

    def _plot(self, scenes: list[Curves]) -> None:
        """Draw a chart a scene; lines that are there already only grow."""
        shapes = [[trace.name for trace in chart.data] for chart in self._chart.children]  # type: ignore[attr-defined]
        if shapes != [[series.name for series in scene.series] for scene in scenes]:
            import plotly.graph_objects as go

            fresh = [curves_figure(scene).update_layout(height=300) for scene in scenes]
            self._chart.children = tuple(go.FigureWidget(figure) for figure in fresh)
            for drawn in self._chart.children:
                drawn._config = {"responsive": True}  # type: ignore[attr-defined]
            return
        for chart, scene in zip(self._chart.children, scenes, strict=True):
            figure: Any = chart
            with figure.batch_update():
                for old, series in zip(figure.data, scene.series, strict=True):
                    old.x, old.y = series.x, series.y
                    old.mode = drawn_as(series)

    def _arrange(self) -> widgets.Widget:
        plain = [self.widgets[c.name] for c in controls(self._type) if not c.knob.advanced]
        expert = [self.widgets[c.name] for c in controls(self._type) if c.knob.advanced]
        parts: list[widgets.Widget] = [widgets.HTML(f"<b>{self._type.title}</b>"), *plain]
        if expert:
            more = widgets.Accordion([widgets.VBox(expert)], titles=("More knobs",), selected_index=None)
            parts.append(more)
        parts += [widgets.HBox([self._go, self._hold, self._one, self._end]), self._bar, self._status]
        left = widgets.VBox(parts, layout=widgets.Layout(flex="1 1 380px", min_width="320px", padding="0 16px 0 0"))
        shown = [self._picture, self._members, self._chart]
        self._right = widgets.VBox(shown, layout=widgets.Layout(flex="1 1 380px", min_width="320px"))
        top = widgets.HBox([left, self._right], layout=widgets.Layout(flex_flow="row wrap", width="100%"))
        self._below = widgets.VBox([self._network], layout=widgets.Layout(width="100%"))
        return widgets.VBox([top, self._below], layout=widgets.Layout(width="100%"))

    def _spread(self) -> None:
        """Give the charts of a study whose network grows or is pruned the whole width, below that network."""
        if self._chart not in self._below.children:
            self._right.children = (self._picture, self._members)
            self._below.children = (*self._below.children, self._chart)


def desk_for(study: type[Study]) -> Desk:
    """Return the desk of the user's own store; a study that no other process can import runs in this one."""
    return Desk(CATALOG) if study in CATALOG else Desk((study,), workers=0)


def _line(text: str) -> str:
    return f"<span>{html.escape(text)}</span>"


def _widget(control: Control, value: Any) -> Any:
    label = {"description": control.knob.label, "tooltip": control.knob.help}
    look = {"layout": WIDE, "style": LABEL}
    bound = control.bound
    if control.kind is bool:
        return widgets.Checkbox(value, **label, **look)
    if isinstance(bound, Choice):
        return widgets.Dropdown(options=bound.options, value=value, **label, **look)
    if isinstance(bound, Words):
        return widgets.Text(value, **label, **look)
    if isinstance(bound, Range) and control.kind is int:
        if bound.high > 10_000:
            return widgets.BoundedIntText(value, min=int(bound.low), max=int(bound.high), **label, **look)
        return widgets.IntSlider(value, min=int(bound.low), max=int(bound.high), **label, **look)
    if isinstance(bound, Range):
        return widgets.BoundedFloatText(value, min=bound.low, max=bound.high, **label, **look)
    return widgets.Text(str(value), **label, **look)
