"""One study as a page: its knobs on one side, the growing picture on the other, nothing that only one study knows."""

__all__ = ["QUIET", "SAYING", "Page", "Updates", "study_page"]

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from studio.core.controls import Range, Words, controls, knobs, to_query
from studio.core.papers import bibtex
from studio.desk.desk import Desk
from studio.desk.store import Row
from studio.render.members import KEEP_CHOICE
from studio.render.molecules import KEEP_MOLECULES
from studio.render.network import KEEP_NETWORK
from studio.render.pruning import KEEP_PRUNING
from studio.studies.study import Study
from studio.surfaces.web_files import file_button, wire_file
from studio.surfaces.web_gradio import Component, gr
from studio.surfaces.web_html import EMPTY_STAGE, alert_html, header_html, idle_html, say, working_html
from studio.surfaces.web_knobs import component, examples
from studio.surfaces.web_run import (
    CHARTS,
    NAMED_ERRORS,
    Shown,
    empty_chart,
    file_of,
    progress,
    sentence,
    study_of,
    texts_of,
)
from studio.surfaces.web_visitor import Visitors

SLOW = 10.0
FIGURE_GAP = 0.3
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Only what goes through the queue may say something with `gr.Info` or `gr.Warning`.
SAYING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
# The address of the page carries the run: another device finds it again, and so does a reload, which Gradio does by
# itself when a lost connection is back.
KEEP_ADDRESS = """id => {
  if (id) window.history.replaceState(null, '', '?run=' + encodeURIComponent(id));
  return id;
}"""
Updates = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Page:
    """The parts of a study's page and what they do; `knobs` are the components in the order of the controls.

    `ticket` holds the id of the run that the page shows; whenever it changes, the page watches that run.
    """

    study: type[Study]
    desk: Desk
    visitors: Visitors
    knobs: tuple[Component, ...]
    upload: gr.File
    ticket: gr.Textbox
    buttons: dict[str, gr.Button]
    compare: gr.Checkbox
    slow: gr.Checkbox
    stage: gr.HTML
    plane: gr.Plot
    members: gr.HTML
    network: gr.HTML
    molecules: gr.HTML
    charts: tuple[gr.Plot, ...]
    status: gr.HTML
    forecast: gr.HTML
    link: gr.Textbox
    download: gr.DownloadButton
    texts: tuple[gr.DownloadButton, gr.DownloadButton]

    def begin(self, request: gr.Request, ticket: str, compare: bool, slow: bool, *values: object) -> Updates:
        """Hand the run in; a knob out of bounds, or too many runs, gives a sentence and no run."""
        owner = self.visitors.owner(request)
        least = SLOW if slow else 0.0
        try:
            study = study_of(self.study, values)
            before = self._controlled(request, ticket)
            if before is not None:
                self.desk.stop(before.id)
            run_id = self.desk.submit(study, owner, least=least)
            plain = study.baseline() if compare else None
            try:
                if plain is not None:
                    self.desk.submit(plain, owner, beside=run_id, least=least)
            except NAMED_ERRORS:
                self.desk.stop(run_id)
                raise
        except NAMED_ERRORS as error:
            return {self.ticket: "", self.status: alert_html(str(error))}
        return {self.ticket: run_id, self.status: working_html(), **self._running()}

    async def watch(self, ticket: str) -> AsyncGenerator[Updates, None]:
        """Yield what changes on the page while a run goes on; closing this leaves the run as it is."""
        if not ticket:
            yield self._idle()
            return
        yield {
            part: gr.update(value=None, interactive=False) for part in (self.download, *self.texts)
        } | self._running()
        newest, held, due = Shown(), False, 0.0
        async for shown in progress(self.desk, ticket):
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
        saved: Updates = {}
        if newest.frame is not None:
            row = newest.frame.row
            saved = self._files(row, newest)
        yield self._drawn(newest, Shown()) | self._idle(newest) | saved

    def _files(self, row: Row, newest: Shown) -> Updates:
        """Return the files of an ended run, ready to be saved."""
        study = self.desk.study(row)
        paths = (file_of(row, study, newest.scenes), *texts_of(study, newest.scenes))
        return {
            part: gr.update(value=str(path), interactive=True, visible=True)
            for part, path in zip((self.download, *self.texts), paths, strict=True)
            if path
        }

    def pause(self, request: gr.Request, ticket: str) -> Updates:
        """Hold a running run, let a held one go on, or take one up again that ended early."""
        row = self._controlled(request, ticket)
        if row is not None:
            held = row.wish == "hold"
            (self.desk.go if held else self.desk.pause)(row.id)
            return {self.buttons["pause"]: _pause_label(not held)}
        try:
            fresh = self.desk.resume(ticket, self.visitors.owner(request))
        except (KeyError, *NAMED_ERRORS) as error:
            return {self.status: alert_html(sentence(error))}
        return {self.ticket: fresh, self.status: working_html(), **self._running()}

    def step(self, request: gr.Request, ticket: str) -> Updates:
        """Take one step of the run and hold it there."""
        row = self._controlled(request, ticket)
        if row is None:
            return {self.buttons["step"]: gr.update(interactive=False)}
        self.desk.step(row.id)
        return {self.buttons["pause"]: _pause_label(True)}

    def stop(self, request: gr.Request, ticket: str) -> Updates:
        """End the run after the step it is in; what it has so far stays."""
        row = self._controlled(request, ticket)
        if row is not None:
            self.desk.stop(ticket)
        return {self.buttons["stop"]: gr.update(interactive=False)}

    def _controlled(self, request: gr.Request, ticket: str) -> Row | None:
        """Return the open run of a ticket, or the one beside it, where this visitor may hold and stop it."""
        try:
            row: Row | None = self.desk.store.row(ticket)
        except KeyError:
            return None
        if row is not None and not row.open:
            row = self.desk.beside(ticket)
        return row if row is not None and row.open and self.visitors.may(request, row) else None

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

    async def answer(self, request: gr.Request, *values: object) -> tuple[str | None, str]:
        """Run to the end and return the picture's path and the outcome, for programs."""
        try:
            study = study_of(self.study, values)
            run_id = self.desk.submit(study, self.visitors.owner(request))
        except NAMED_ERRORS as error:
            raise gr.Error(say(error), print_exception=False) from error
        newest = Shown()
        async for shown in progress(self.desk, run_id):
            newest = shown
        if newest.frame is None or not newest.frame.ended:
            raise gr.Error(self.desk.row(run_id).error or "the run was stopped", print_exception=False)
        path = file_of(newest.frame.row, study, newest.scenes)
        return str(path) if path else None, newest.frame.snapshot.outcome

    def _drawn(self, new: Shown, old: Shown, heavy: bool = True) -> Updates:
        """Return what changed; figures, which cost the browser more than pictures, only where `heavy`."""
        updates: Updates = {self.status: new.status}
        if new.pictures != old.pictures:
            updates[self.stage] = gr.update(value=new.pictures, visible=True)
        if heavy and new.network != old.network:
            updates[self.network] = gr.update(value=new.network, visible=bool(new.network))
            if not new.pictures:
                updates[self.stage] = gr.update(visible=False)
        if new.plane is not None and heavy:
            updates[self.plane] = gr.update(value=new.plane, visible=True)
            updates[self.stage] = gr.update(visible=bool(new.pictures))
        if heavy and new.molecules != old.molecules:
            updates[self.molecules] = gr.update(value=new.molecules, visible=bool(new.molecules))
            if not new.pictures:
                updates[self.stage] = gr.update(visible=False)
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

    def _idle(self, newest: Shown | None = None) -> Updates:
        off = gr.update(interactive=False)
        frame = None if newest is None else newest.frame
        early = frame is not None and frame.ended and frame.stopped
        return {
            self.buttons["run"]: gr.update(interactive=True),
            self.buttons["pause"]: gr.update(value="Go on" if early else "Pause", interactive=early),
            self.buttons["step"]: off,
            self.buttons["stop"]: off,
        }


def study_page(study: type[Study], desk: Desk, visitors: Visitors) -> Page:
    """Build the page of a study inside the open Blocks, wire it, and return its parts."""
    gr.HTML(header_html(study))
    with gr.Row(elem_classes="st-page"):
        with gr.Column(elem_classes="st-desk", min_width=0):
            found, buttons, forecast, compare, slow = _desk(study)
        with gr.Column(elem_classes="st-stage"):
            status = gr.HTML(idle_html(), elem_classes="st-state")
            stage = gr.HTML(EMPTY_STAGE, elem_classes="st-canvas")
            molecules = gr.HTML(visible=False, html_template="", js_on_load=KEEP_MOLECULES, elem_classes="st-turned")
            plane = gr.Plot(visible=False, show_label=False, container=False, elem_classes="st-plane")
        network = gr.HTML(visible=False, js_on_load=KEEP_NETWORK + KEEP_PRUNING, elem_classes="st-grown")
        with gr.Column(elem_classes="st-more"):
            members = gr.HTML(visible=False, js_on_load=KEEP_CHOICE)
            with gr.Row(elem_classes="st-charts"):
                charts = tuple(
                    gr.Plot(None if index else empty_chart(), visible=not index, show_label=False, container=False)
                    for index in range(CHARTS)
                )
            download = gr.DownloadButton("Save picture (PNG)", interactive=False)
            with gr.Row(elem_classes="st-texts"):
                texts = _text_button("SDF"), _text_button("XYZ")
            link = gr.Textbox(label="Link to these knobs", interactive=False, buttons=["copy"], elem_classes="st-link")
            with gr.Accordion("Open a saved picture", open=False):
                upload = gr.File(label="Drop a PNG saved by the studio", file_types=[".png"], height=110)
            with gr.Accordion("Cite", open=False):
                text = "\n\n".join(bibtex(paper) for paper in study.papers)
                gr.Textbox(text, label="BibTeX", lines=8, interactive=False, buttons=["copy"], elem_classes="st-code")
    ticket = gr.Textbox("", visible="hidden", label="Run")
    page = Page(
        study, desk, visitors, found, upload, ticket, buttons, compare, slow,
        stage, plane, members, network, molecules, charts, status, forecast, link, download, texts,
    )  # fmt: skip
    _wire(page)
    return page


def _text_button(kind: str) -> gr.DownloadButton:
    return gr.DownloadButton(f"Save {kind}", interactive=False, visible=False, min_width=120)


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
    opener = file_button(study)
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
    wire_file(opener, study, [made[control.name] for control in every])
    return tuple(made[control.name] for control in every), buttons, forecast, compare, slow


def _seed(control: Any, made: dict[str, Component]) -> None:
    high = int(control.bound.high) if isinstance(control.bound, Range) else 2**31 - 1
    with gr.Row(elem_classes="st-seed"):
        made["seed"] = component(control)
        surprise = gr.Button("Surprise me", size="md", min_width=120)
    surprise.click(None, None, made["seed"], js=f"() => Math.floor(Math.random() * {high})", api_visibility="private")


def _wire(page: Page) -> None:
    knobs_in, buttons = list(page.knobs), page.buttons
    shown = [page.stage, page.plane, page.members, page.network, page.molecules, *page.charts, page.status]
    outputs = [page.ticket, *buttons.values(), *shown, page.download, *page.texts]
    words = [knob.submit for knob in page.knobs if isinstance(knob, gr.Textbox)]
    given = [page.ticket, page.compare, page.slow, *knobs_in]
    watching = page.ticket.change(
        page.watch, page.ticket, outputs, js=KEEP_ADDRESS, concurrency_limit=None, show_progress="hidden",
        trigger_mode="multiple", api_visibility="private",
    )  # fmt: skip
    gr.on([buttons["run"].click, *words], page.begin, given, outputs, cancels=[watching], **QUIET)
    buttons["pause"].click(page.pause, page.ticket, outputs, **QUIET)
    buttons["step"].click(page.step, page.ticket, list(buttons.values()), **QUIET)
    buttons["stop"].click(page.stop, page.ticket, list(buttons.values()), **QUIET)
    turned: list[Any] = list(page.knobs)
    gr.on(
        [knob.change for knob in turned], page.refresh, knobs_in, [page.forecast, page.link],
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    file, text = gr.File(visible=False), gr.Textbox(visible=False)
    gr.Button(visible=False).click(
        _named(page.answer, page.study), knobs_in, [file, text],
        api_name=page.study.name, concurrency_limit=None,
    )  # fmt: skip


def _wrong(error: Exception) -> str:
    return f'<p class="st-needs st-wrong">{say(error)}</p>'


def _named(answer: Callable[..., Awaitable[Any]], study: type[Study]) -> Callable[..., Awaitable[Any]]:
    """Return the function under the names of the knobs, which is how programs call it."""

    async def run(request: gr.Request, *values: object) -> tuple[str | None, str]:
        return await answer(request, *values)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["request", *(control.name for control in controls(study))]
    run.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    run.__annotations__ = {"request": gr.Request}
    return run


def _pause_label(held: bool) -> Any:
    return gr.update(value="Resume" if held else "Pause", interactive=True)


def _address(request: gr.Request) -> str:
    return f"http://{request.headers.get('host', '127.0.0.1')}"
