"""The rows of tabs of a page: the groups of studies and the runs above, the studies of a group below."""

__all__ = ["ARROWS", "STYLE", "Rows", "rows_of", "shelves"]

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.studies.study import Study
from studio.surfaces.web_gradio import gr
from studio.surfaces.web_page import Page, Updates

STYLE = Path(__file__).with_name("web_gallery.css")
# Gradio's tabs are buttons, each a stop of the Tab key; within a row the arrow keys go from one to the next as well.
ARROWS = """() => document.addEventListener('keydown', event => {
  const tab = event.target.closest('[role=tab]'), way = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!tab || !way) return;
  const row = [...tab.closest('[role=tablist]').querySelectorAll('[role=tab]')];
  row.at((row.indexOf(tab) + way) % row.length).focus();
  event.preventDefault();
})"""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of tabs: `top` is always there; `below` holds the row of every group, or none where there is one row."""

    top: gr.Tabs
    below: tuple[tuple[str, gr.Tabs], ...]

    @property
    def every(self) -> list[gr.Tabs]:
        """Return all rows, for the outputs of a listener."""
        return [self.top, *(row for _, row in self.below)]

    def selected(self, study: type[Study]) -> Updates:
        """Return the updates that bring a study's page to the front."""
        if not self.below:
            return {self.top: gr.Tabs(selected=study.name)}
        row = dict(self.below)[study.shelf]
        return {self.top: gr.Tabs(selected=study.shelf), row: gr.Tabs(selected=study.name)}


def rows_of(
    catalog: tuple[type[Study], ...], build: Callable[[type[Study]], Page], runs: Callable[[gr.Tab], Any]
) -> tuple[list[Page], Rows]:
    """Build the page of every study in its tab and that of the runs in the last; return the pages and the rows.

    Studies of a single group stand in one row with the runs; those of several get a row for each group below.
    """
    groups = shelves(catalog)
    pages, below = [], []
    with gr.Tabs(elem_classes="st-tabs", overflow_behavior="wrap") as top:
        for shelf, studies in groups:
            if len(groups) == 1:
                pages += _tabs(studies, build)
                continue
            with (
                gr.Tab(shelf, id=shelf),
                gr.Tabs(elem_classes="st-studies", overflow_behavior="wrap") as row,
            ):
                pages += _tabs(studies, build)
            below.append((shelf, row))
        with gr.Tab("Runs", id="runs", alignment="left" if len(catalog) == 1 else "right") as tab:
            runs(tab)
    return pages, Rows(top, tuple(below))


def shelves(catalog: tuple[type[Study], ...]) -> tuple[tuple[str, tuple[type[Study], ...]], ...]:
    """Return the groups of a catalogue with their studies, both in its order."""
    names = dict.fromkeys(study.shelf for study in catalog)
    return tuple((name, tuple(study for study in catalog if study.shelf == name)) for name in names)


def _tabs(studies: tuple[type[Study], ...], build: Callable[[type[Study]], Page]) -> list[Page]:
    pages = []
    for study in studies:
        with gr.Tab(study.title, id=study.name):
            pages.append(build(study))
    return pages
