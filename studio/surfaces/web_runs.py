"""The gallery of past runs: find one by its words, look again, put two side by side, keep, repeat or delete."""

__all__ = ["runs_page"]

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from studio.core.controls import knobs
from studio.desk.desk import Desk
from studio.desk.exports import FORMATS, export, file_name, formats
from studio.desk.store import Row
from studio.render.molecules import KEEP_MOLECULES
from studio.render.network import KEEP_NETWORK
from studio.render.pruning import KEEP_PRUNING
from studio.studies.study import Study
from studio.surfaces.web_gradio import gr
from studio.surfaces.web_handout import handout
from studio.surfaces.web_html import alert_html, say
from studio.surfaces.web_run import CHARTS, NAMED_ERRORS, Shown, drawn, overlaid, sentence
from studio.surfaces.web_runs_html import cards_html, chosen_html, differences_html, empty_html
from studio.surfaces.web_visitor import Visitors

MOST = 60
EVERY = "all"
LOOK = 3.0
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# A card is a button: the first choice stands left, the second right; choosing one again lets it go.
CHOOSE = """
let chosen = [];
const mark = () => element.querySelectorAll('[data-run]').forEach(card => {
  card.setAttribute('aria-pressed', chosen.includes(card.dataset.run));
  card.dataset.place = chosen.indexOf(card.dataset.run) + 1;
});
element.addEventListener('click', event => {
  const card = event.target.closest('[data-run]');
  if (!card) return;
  const id = card.dataset.run;
  chosen = chosen.includes(id) ? chosen.filter(other => other !== id) : [...chosen, id].slice(-2);
  mark();
  trigger('select', {chosen: chosen.join(' ')});
});
watch('value', () => {
  chosen = chosen.filter(id => element.querySelector(`[data-run="${id}"]`));
  mark();
});
mark();
"""
SURE = "ids => window.confirm('Delete the chosen runs and their files?') ? ids : ''"
Updates = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Side:
    """What is shown of one chosen run."""

    about: gr.HTML
    stage: gr.HTML
    plane: gr.Plot
    members: gr.HTML
    network: gr.HTML
    molecules: gr.HTML


@dataclass(frozen=True, eq=False)
class Runs:
    """The parts of the tab and what they do; `ids` holds the chosen runs, at most two, a space between them."""

    desk: Desk
    visitors: Visitors
    catalog: tuple[type[Study], ...]
    words: gr.Textbox
    study: gr.Dropdown
    cards: gr.HTML
    seen: gr.State
    ids: gr.Textbox
    detail: gr.Column
    sides: tuple[Side, Side]
    differences: gr.HTML
    charts: tuple[gr.Plot, ...]
    said: gr.HTML
    kind: gr.Dropdown
    file: gr.DownloadButton
    step: gr.Number

    async def find(self, request: gr.Request, words: str, study: str, before: str) -> Updates:
        """Return the cards of the runs that hold the words; what has not changed is not sent again."""
        try:
            names = [kind.name for kind in self.catalog if study in (EVERY, kind.title)]
            rows = self.desk.store.search(words or "", names, self.visitors.seen(request), MOST)
            searched = bool(words or study != EVERY)
            now = repr([(row.id, row.state, row.frame) for row in rows] or [searched])
            if now == before:
                return {self.cards: gr.skip(), self.seen: now}
            html = await asyncio.to_thread(cards_html, self.desk, rows) if rows else empty_html(searched)
        except NAMED_ERRORS as error:
            return {self.cards: alert_html(sentence(error)), self.seen: ""}
        return {self.cards: html, self.seen: now}

    async def choose(self, ids: str) -> Updates:
        """Show the chosen runs, two of them side by side on the same axes."""
        rows = self._rows(ids)
        if not rows:
            return {self.detail: gr.update(visible=False), self.ids: ""}
        looks, updates = [], {self.detail: gr.update(visible=True), self.said: "", self.ids: ids}
        for side, row in zip(self.sides, [*rows, None], strict=False):
            if row is None:
                updates |= {part: gr.update(visible=False) for part in vars(side).values()}
                continue
            look = await asyncio.to_thread(self._look, row)
            looks.append(look)
            updates |= {
                side.about: gr.update(value=chosen_html(row, self.desk.kind(row.study)), visible=True),
                side.stage: gr.update(value=look.pictures, visible=bool(look.pictures)),
                side.plane: gr.update(value=look.plane, visible=look.plane is not None),
                side.members: gr.update(value=look.members, visible=bool(look.members)),
                side.network: gr.update(value=look.network, visible=bool(look.network)),
                side.molecules: gr.update(value=look.molecules, visible=bool(look.molecules)),
            }
        both = len(rows) == 2
        table = differences_html(*(knobs(self.desk.study(row)) for row in rows)) if both else ""
        updates[self.differences] = gr.update(value=table, visible=both)
        figures = overlaid(looks[0].scenes, looks[1].scenes, "right") if both else looks[0].charts
        for index, plot in enumerate(self.charts):
            there = index < len(figures)
            updates[plot] = gr.update(value=figures[index] if there else None, visible=there)
        allowed = await asyncio.to_thread(self._formats, rows[0])
        updates[self.step] = gr.update(value=rows[0].step)
        updates[self.kind] = gr.update(choices=list(allowed), value=allowed[0] if allowed else None)
        return updates | (await self.make(ids, allowed[0]) if allowed else {self.file: gr.update(interactive=False)})

    async def make(self, ids: str, kind: str) -> Updates:
        """Make the file of the first chosen run in a format, ready to be saved."""
        rows = self._rows(ids)
        if not rows:
            return {self.file: gr.update(interactive=False)}
        try:
            data = await asyncio.to_thread(export, self.desk, rows[0], kind)
        except NAMED_ERRORS as error:
            return {self.file: gr.update(value=None, interactive=False), self.said: alert_html(str(error))}
        path = handout(file_name(rows[0], kind), data)
        return {self.file: gr.update(label=f"Save as {kind.upper()}", value=str(path), interactive=True), self.said: ""}

    async def repeat(self, request: gr.Request, ids: str) -> AsyncGenerator[str, None]:
        """Hand the first chosen run in again and say, at its end, whether its bytes came out the same."""
        for row in self._rows(ids)[:1]:
            try:
                fresh = self.desk.again(row.id, self.visitors.owner(request))
                async for frame in self.desk.follow(fresh, 1.0):
                    step = f"step {frame.snapshot.step:,} of {frame.snapshot.total:,}" if frame else "waiting"
                    yield _note(f"Repeating it: {step}")
                agree, words = self.desk.verdict(row.id, fresh)
                yield _note(f"{'✓' if agree else '✗'} Repeated: {words}.")
            except NAMED_ERRORS as error:
                yield alert_html(sentence(error))

    async def undo(self, request: gr.Request, ids: str, step: float | None) -> AsyncGenerator[str, None]:
        """Take the first chosen run back to an earlier step, as a new run that ends there."""
        for row in self._rows(ids)[:1]:
            try:
                fresh = self.desk.back(row.id, int(step or 0), self.visitors.owner(request))
                async for frame in self.desk.follow(fresh, 1.0):
                    yield _note(f"Going back: step {frame.snapshot.step:,}" if frame else "Going back: waiting")
                ended = self.desk.store.row(fresh)
                words = f"The run that ends at step {ended.step:,} is the first of the list: save it, or go on with it"
                yield _note(f"{words} on its own page.") if ended.frame else alert_html(ended.error or "it was stopped")
            except NAMED_ERRORS as error:
                yield alert_html(sentence(error))

    def delete(self, request: gr.Request, ids: str) -> Updates:
        """Delete the chosen runs that have ended and are this visitor's; none where somebody thought again."""
        if not ids:
            return {self.said: ""}
        said = ""
        for row in self._rows(ids):
            try:
                if not self.visitors.may(request, row):
                    raise ValueError("this run is somebody else's")
                self.desk.store.delete(row.id)
            except NAMED_ERRORS as error:
                said += alert_html(sentence(error))
        left = self._rows(ids)
        return {self.said: said, self.detail: gr.update(visible=bool(left)), self.ids: " ".join(r.id for r in left)}

    def _rows(self, ids: str) -> list[Row]:
        found = []
        for run_id in (ids or "").split()[:2]:
            try:
                found.append(self.desk.store.row(run_id))
            except KeyError:
                continue
        return found

    def _look(self, row: Row) -> Shown:
        try:
            study = self.desk.study(row)
            return drawn(study, row, self.desk.snapshot(row), place="kept-")
        except NAMED_ERRORS:
            return Shown()

    def _formats(self, row: Row) -> tuple[str, ...]:
        try:
            return formats(self.desk, row)
        except NAMED_ERRORS:
            return ()


def _note(words: str) -> str:
    return f'<p class="st-outcome" role="status">{say(words)}</p>'


def runs_page(desk: Desk, visitors: Visitors, catalog: tuple[type[Study], ...], tab: gr.Tab) -> None:
    """Build the gallery of past runs inside the open tab, and wire it."""
    with gr.Row(elem_classes="st-search"):
        words = gr.Textbox(label="Search", placeholder="a word of the prompt, the outcome, a knob …", scale=3)
        study = gr.Dropdown([EVERY, *(kind.title for kind in catalog)], value=EVERY, label="Study", scale=1)
    with gr.Row(elem_classes="st-runs"):
        with gr.Column(elem_classes="st-list", min_width=0):
            cards = gr.HTML("", js_on_load=CHOOSE)
        with gr.Column(visible=False, elem_classes="st-detail", min_width=0) as detail:
            with gr.Row(elem_classes="st-acts"):
                kind = gr.Dropdown(list(FORMATS), value="png", label="Format", min_width=110, scale=1)
                file = gr.DownloadButton("Save", interactive=False, size="md", min_width=0)
                repeat = gr.Button("Repeat it", size="md", min_width=0)
                step = gr.Number(0, label="Step", precision=0, minimum=0, min_width=90, scale=1)
                undo = gr.Button("Undo to this step", size="md", min_width=0)
                delete = gr.Button("Delete", variant="stop", size="md", min_width=0)
            said = gr.HTML("")
            with gr.Row(elem_classes="st-sides"):
                sides = _side(), _side()
            differences = gr.HTML(visible=False)
            with gr.Row(elem_classes="st-charts"):
                # Two runs of different studies have no chart in common.
                charts = tuple(gr.Plot(visible=False, show_label=False, container=False) for _ in range(2 * CHARTS))
    ids = gr.Textbox("", visible="hidden", label="Chosen runs")
    runs = Runs(
        desk, visitors, catalog, words, study, cards, gr.State(""), ids, detail, sides, differences, charts, said, kind,
        file, step,
    )  # fmt: skip
    _wire(runs, tab, repeat, undo, delete)


def _side() -> Side:
    with gr.Column(min_width=0):
        about = gr.HTML(visible=False)
        stage = gr.HTML(visible=False, elem_classes="st-canvas")
        plane = gr.Plot(visible=False, show_label=False, container=False, elem_classes="st-plane")
        molecules = gr.HTML(visible=False, html_template="", js_on_load=KEEP_MOLECULES)
        members, network = gr.HTML(visible=False), gr.HTML(visible=False, js_on_load=KEEP_NETWORK + KEEP_PRUNING)
        return Side(about, stage, plane, members, network, molecules)


def _wire(runs: Runs, tab: gr.Tab, repeat: gr.Button, undo: gr.Button, delete: gr.Button) -> None:
    given, found = [runs.words, runs.study, runs.seen], [runs.cards, runs.seen]
    gr.on(
        [tab.select, runs.words.change, runs.study.change, gr.Timer(LOOK).tick], runs.find, given, found,
        trigger_mode="always_last", queue=False, **QUIET,
    )  # fmt: skip
    parts = [part for side in runs.sides for part in vars(side).values()]
    outputs = [
        runs.detail, runs.ids, *parts, runs.differences, *runs.charts, runs.said, runs.kind, runs.file, runs.step,
    ]  # fmt: skip

    async def chosen(event: gr.EventData) -> Updates:
        return await runs.choose(str(getattr(event, "chosen", "")))

    runs.cards.select(chosen, None, outputs, trigger_mode="multiple", **QUIET)
    runs.kind.input(runs.make, [runs.ids, runs.kind], [runs.file, runs.said], **QUIET)
    repeat.click(runs.repeat, runs.ids, runs.said, concurrency_limit=None, **QUIET)
    undo.click(runs.undo, [runs.ids, runs.step], runs.said, concurrency_limit=None, **QUIET).then(
        runs.find, given, found, queue=False, **QUIET
    )
    delete.click(runs.delete, runs.ids, [runs.said, runs.detail, runs.ids], js=SURE, queue=False, **QUIET).then(
        runs.find, given, found, queue=False, **QUIET
    )
