"""One study as a page: its knobs on one side, the growing picture on the other, nothing that only one study knows."""

__all__ = ["Page", "study_page"]

import inspect
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.controls import Range, Words, controls, knobs, to_query
from studio.core.papers import bibtex
from studio.desk.local import Desk
from studio.studies.study import Study
from studio.surfaces.members_html import KEEP_CHOICE
from studio.surfaces.web_gradio import Component, gr
from studio.surfaces.web_html import (
    EMPTY_STAGE,
    alert_html,
    header_html,
    idle_html,
    say,
    waiting_html,
    working_html,
)
from studio.surfaces.web_knobs import component, examples
from studio.surfaces.web_run import NAMED_ERRORS, Shown, Turn, empty_chart, file_of, progress, study_of

CHARTS = 2
MOST_RUNS = 8
SLOW = 10.0
FIGURE_GAP = 0.3
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
Updates = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Page:
    """The parts of a study's page and what they do; `knobs` are the components in the order of the controls."""

    study: type[Study]
    desk: Desk
    knobs: tuple[Component, ...]
    upload: gr.File
    turn: gr.State
    held: gr.State
    buttons: dict[str, gr.Button]
    compare: gr.Checkbox
    slow: gr.Checkbox
    stage: gr.HTML
    plane: gr.Plot
    members: gr.HTML
    charts: tuple[gr.Plot, ...]
    status: gr.HTML
    forecast: gr.HTML
    link: gr.Textbox
    download: gr.DownloadButton

    def begin(self, request: gr.Request, turn: Turn | None, compare: bool, *values: object) -> Updates:
        """Hand the run in; a knob out of bounds, or too many runs, gives a sentence and no run."""
        try:
            study = study_of(self.study, values)
            if turn is not None:
                self.desk.stop(turn.run_id)
            ahead = self.desk.open_runs
            if ahead >= MOST_RUNS:
                raise ValueError(f"{ahead} runs are waiting already: try again when some have ended")
        except NAMED_ERRORS as error:
            return {self.turn: None, self.status: alert_html(str(error))}
        run_id = self.desk.submit(study, owner=_owner(request))
        status = waiting_html(ahead) if ahead else working_html()
        fresh = Turn(run_id, study, study.baseline() if compare else None)
        return {self.turn: fresh, self.held: False, self.status: status, **self._running()}

    def watch(self, request: gr.Request, turn: Turn | None, slow: bool) -> Generator[Updates, None, None]:
        """Yield what changes on the page while a run goes on; closing this closes the run."""
        if turn is None:
            yield self._idle()
            return
        yield {self.status: working_html(), self.download: gr.update(value=None, interactive=False), **self._running()}
        newest, held, due = Shown(), False, 0.0
        steps = progress(self.desk, turn, SLOW if slow else 0.0, _owner(request))
        with tempfile.TemporaryDirectory() as folder:
            try:
                for shown in steps:
                    if isinstance(shown, Turn):
                        yield {self.turn: shown}
                        continue
                    now = shown.frame is not None and shown.frame.held
                    heavy = now or time.monotonic() >= due
                    updates = self._drawn(shown, newest, heavy)
                    due = time.monotonic() + FIGURE_GAP if heavy else due
                    if now != held:
                        held = now
                        updates |= self._running(held)
                    newest = shown
                    if not shown.over:
                        yield updates
                path = file_of(turn.study, newest.scenes, Path(folder)) if newest.scenes else None
                saved = {self.download: gr.update(value=str(path), interactive=True)} if path else {}
                yield self._drawn(newest, Shown()) | self._idle() | saved
            finally:
                steps.close()

    def pause(self, turn: Turn | None, held: bool) -> Updates:
        """Hold a running run, or let a held one go on."""
        if turn is None:
            return {self.held: False}
        (self.desk.resume if held else self.desk.pause)(turn.run_id)
        return {self.held: not held, self.buttons["pause"]: _pause_label(not held)}

    def step(self, turn: Turn | None) -> Updates:
        """Take one step of the run and hold it there."""
        if turn is None:
            return {self.held: False}
        self.desk.step(turn.run_id)
        return {self.held: True, self.buttons["pause"]: _pause_label(True)}

    def stop(self, turn: Turn | None) -> Updates:
        """End the run after the step it is in; what it has so far stays."""
        if turn is not None:
            self.desk.stop(turn.run_id)
        return {self.held: False, self.buttons["stop"]: gr.update(interactive=False)}

    def refresh(self, request: gr.Request, *values: object) -> Updates:
        """Say what a run with these knobs needs, and give the link that brings them back."""
        try:
            study = study_of(self.study, values)
        except NAMED_ERRORS as error:
            return {self.forecast: _wrong(error), self.link: gr.skip()}
        query = to_query(study)
        address = f"{_address(request)}/?study={self.study.name}{'&' if query else ''}{query}"
        try:
            return {self.forecast: f'<p class="st-needs">{say(study.forecast())}</p>', self.link: address}
        except NAMED_ERRORS as error:
            return {self.forecast: _wrong(error), self.link: address}

    def restored(self, study: Study) -> Updates:
        """Return the update that puts every knob to what a study says."""
        return dict(zip(self.knobs, knobs(study).values(), strict=True))

    def answer(self, request: gr.Request, *values: object) -> tuple[str | None, str]:
        """Run to the end and return the picture's path and the outcome, for programs."""
        try:
            study = study_of(self.study, values)
            if self.desk.open_runs >= MOST_RUNS:
                raise ValueError(f"{self.desk.open_runs} runs are waiting already: try again when some have ended")
        except NAMED_ERRORS as error:
            raise gr.Error(say(error), print_exception=False) from error
        newest = Shown()
        for shown in progress(self.desk, Turn(self.desk.submit(study, owner=_owner(request)), study)):
            newest = shown if isinstance(shown, Shown) else newest
        if newest.frame is None or not newest.frame.ended:
            raise gr.Error("the run gave nothing: see the terminal the studio was started from", print_exception=False)
        path = file_of(study, newest.scenes, Path(tempfile.mkdtemp(prefix="studio-")))
        return str(path) if path else None, newest.frame.snapshot.outcome

    def _drawn(self, new: Shown, old: Shown, heavy: bool = True) -> Updates:
        """Return what changed; figures, which cost the browser more than pictures, only where `heavy`."""
        updates: Updates = {self.status: new.status}
        if new.pictures != old.pictures:
            updates[self.stage] = gr.update(value=new.pictures, visible=True)
        if new.plane is not None and heavy:
            updates[self.plane] = gr.update(value=new.plane, visible=True)
            updates[self.stage] = gr.update(visible=bool(new.pictures))
        if heavy and new.members != old.members:
            updates[self.members] = gr.update(value=new.members, visible=bool(new.members))
        if heavy:
            updates |= {
                plot: gr.update(value=drawn, visible=True) for plot, drawn in zip(self.charts, new.charts, strict=False)
            }
        return updates

    def _running(self, held: bool = False) -> Updates:
        return {
            self.buttons["run"]: gr.update(interactive=False),
            self.buttons["pause"]: _pause_label(held),
            self.buttons["step"]: gr.update(interactive=True),
            self.buttons["stop"]: gr.update(interactive=True),
        }

    def _idle(self) -> Updates:
        off = gr.update(interactive=False)
        return {
            self.held: False,
            self.buttons["run"]: gr.update(interactive=True),
            self.buttons["pause"]: gr.update(value="Pause", interactive=False),
            self.buttons["step"]: off,
            self.buttons["stop"]: off,
        }


def study_page(study: type[Study], desk: Desk) -> Page:
    """Build the page of a study inside the open Blocks, wire it, and return its parts."""
    gr.HTML(header_html(study))
    with gr.Row(elem_classes="st-page"):
        with gr.Column(elem_classes="st-desk", min_width=0):
            found, buttons, forecast, compare, slow = _desk(study)
        with gr.Column(elem_classes="st-stage"):
            status = gr.HTML(idle_html(), elem_classes="st-state")
            stage = gr.HTML(EMPTY_STAGE, elem_classes="st-canvas")
            plane = gr.Plot(visible=False, show_label=False, container=False, elem_classes="st-plane")
        with gr.Column(elem_classes="st-more"):
            members = gr.HTML(visible=False, js_on_load=KEEP_CHOICE)
            charts = tuple(
                gr.Plot(None if index else empty_chart(), visible=not index, show_label=False, container=False)
                for index in range(CHARTS)
            )
            download = gr.DownloadButton("Save picture (PNG)", interactive=False)
            link = gr.Textbox(label="Link to these knobs", interactive=False, buttons=["copy"], elem_classes="st-link")
            with gr.Accordion("Open a saved picture", open=False):
                upload = gr.File(label="Drop a PNG saved by the studio", file_types=[".png"], height=110)
            with gr.Accordion("Cite", open=False):
                text = "\n\n".join(bibtex(paper) for paper in study.papers)
                gr.Textbox(text, label="BibTeX", lines=8, interactive=False, buttons=["copy"], elem_classes="st-code")
    turn, held = gr.State(None), gr.State(False)
    page = Page(
        study, desk, found, upload, turn, held, buttons, compare, slow,
        stage, plane, members, charts, status, forecast, link, download,
    )  # fmt: skip
    _wire(page)
    return page


def _desk(
    study: type[Study],
) -> tuple[tuple[Component, ...], dict[str, gr.Button], gr.HTML, gr.Checkbox, gr.Checkbox]:
    """Build the column of knobs and buttons: words first, then the buttons, then the rest."""
    made: dict[str, Component] = {}
    every = controls(study)
    for control in every:
        if isinstance(control.bound, Words) and not control.knob.advanced:
            made[control.name] = component(control)
            examples(control, made[control.name])
    with gr.Row(elem_classes="st-buttons"):
        buttons = {
            "run": gr.Button("Run", variant="primary", size="md", min_width=0),
            "pause": gr.Button("Pause", interactive=False, size="md", min_width=0),
            "step": gr.Button("Step", interactive=False, size="md", min_width=0),
            "stop": gr.Button("Stop", variant="stop", interactive=False, size="md", min_width=0),
        }
    forecast = gr.HTML("")
    plain = [c for c in every if c.name not in made and c.name != "seed" and not c.knob.advanced]
    for control in plain:
        made[control.name] = component(control)
    _seed(next(c for c in every if c.name == "seed"), made)
    compare = gr.Checkbox(False, label="Also run the plain baseline", visible=study.baseline is not Study.baseline)
    slow = gr.Checkbox(False, label="Slow motion", info=f"spread a short run over {SLOW:g} seconds")
    hidden = [c for c in every if c.name not in made]
    if hidden:
        with gr.Accordion("Advanced", open=False):
            for control in hidden:
                made[control.name] = component(control)
    return tuple(made[control.name] for control in every), buttons, forecast, compare, slow


def _seed(control: Any, made: dict[str, Component]) -> None:
    high = int(control.bound.high) if isinstance(control.bound, Range) else 2**31 - 1
    with gr.Row(elem_classes="st-seed"):
        made["seed"] = component(control)
        surprise = gr.Button("Surprise me", size="md", min_width=120)
    surprise.click(None, None, made["seed"], js=f"() => Math.floor(Math.random() * {high})", api_visibility="private")


def _wire(page: Page) -> None:
    knobs_in, buttons = list(page.knobs), page.buttons
    outputs = [
        page.turn,
        page.held,
        *buttons.values(),
        page.stage,
        page.plane,
        page.members,
        *page.charts,
        page.status,
        page.download,
    ]
    words = [knob.submit for knob in page.knobs if isinstance(knob, gr.Textbox)]
    gr.on(
        [buttons["run"].click, *words], page.begin, [page.turn, page.compare, *knobs_in], outputs, **QUIET
    ).success(
        page.watch, [page.turn, page.slow], outputs, concurrency_limit=1, concurrency_id="engine",
        show_progress="hidden", trigger_mode="multiple", api_visibility="private",
    )  # fmt: skip
    light = [page.held, buttons["pause"], buttons["stop"]]
    buttons["pause"].click(page.pause, [page.turn, page.held], light, **QUIET)
    buttons["step"].click(page.step, [page.turn], light, **QUIET)
    buttons["stop"].click(page.stop, [page.turn], light, **QUIET)
    turned: list[Any] = list(page.knobs)
    gr.on(
        [knob.change for knob in turned], page.refresh, knobs_in, [page.forecast, page.link],
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    file, text = gr.File(visible=False), gr.Textbox(visible=False)
    gr.Button(visible=False).click(
        _named(page.answer, page.study), knobs_in, [file, text],
        api_name=page.study.name, concurrency_limit=1, concurrency_id="engine",
    )  # fmt: skip


def _wrong(error: Exception) -> str:
    return f'<p class="st-needs st-wrong">{say(error)}</p>'


def _named(answer: Callable[..., tuple[str | None, str]], study: type[Study]) -> Callable[..., tuple[str | None, str]]:
    """Return the function under the names of the knobs, which is how programs call it."""

    def run(request: gr.Request, *values: object) -> tuple[str | None, str]:
        return answer(request, *values)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["request", *(control.name for control in controls(study))]
    run.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    run.__annotations__ = {"request": gr.Request}
    return run


def _pause_label(held: bool) -> Any:
    return gr.update(value="Resume" if held else "Pause", interactive=True)


def _owner(request: gr.Request) -> str:
    return request.session_hash or ""


def _address(request: gr.Request) -> str:
    return f"http://{request.headers.get('host', '127.0.0.1')}"
