"""The rows of tabs: studies stand by their groups, the runs beside the groups, and links open both rows."""

import re
from types import SimpleNamespace

import pytest
from surfaces.growing import Growing
from surfaces.painting import Painting

from studio.catalog import CATALOG
from studio.desk.desk import Desk
from studio.studies.landscapes import Landscapes
from studio.studies.study import Study
from studio.surfaces import web, web_gallery
from studio.surfaces.web_gradio import gr
from studio.surfaces.web_page import study_page
from studio.surfaces.web_visitor import Visitors

# Gradio leaves event loops to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def study_of(name, shelf):
    return SimpleNamespace(name=name, title=name.capitalize(), shelf=shelf)


def labels(tabs):
    """Return the words of every tab, a row of tabs as a list after the tab that holds it."""
    found = []
    for tab in tabs.children:
        found.append(tab.label)
        found += [labels(row) for row in tab.children if isinstance(row, gr.Tabs)]
    return found


def built(*studies):
    with gr.Blocks():
        return web_gallery.rows_of(studies, lambda study: study, lambda tab: None)


def test_groups_and_studies_keep_the_order_of_the_catalogue():
    a, b, c, d = study_of("a", "X"), study_of("b", "Y"), study_of("c", "X"), study_of("d", "Z")
    assert web_gallery.shelves((a, b, c, d)) == (("X", (a, c)), ("Y", (b,)), ("Z", (d,)))
    pages, rows = built(a, b, c, d)
    assert labels(rows.top) == ["X", ["A", "C"], "Y", ["B"], "Z", ["D"], "Runs"] and pages == [a, c, b, d]


@pytest.mark.parametrize("studies", [[study_of("a", "X")], [study_of("a", "X"), study_of("b", "X")]], ids=len)
def test_studies_of_one_group_stand_beside_the_runs(studies):
    pages, rows = built(*studies)
    assert labels(rows.top) == [*(study.title for study in studies), "Runs"] and pages == studies
    updates = rows.selected(studies[-1])
    assert rows.every == [rows.top] == list(updates) and updates[rows.top].selected == studies[-1].name


@pytest.mark.parametrize("count", [9, 14])
def test_no_row_folds_a_tab_away(count):
    _, rows = built(*(study_of(f"s{index}", f"Group {index // 3}") for index in range(count)))
    assert [row.overflow_behavior for row in rows.every] == ["wrap"] * (1 + -(-count // 3))


def test_a_study_is_brought_to_the_front_in_both_rows():
    a, b, c = study_of("a", "X"), study_of("b", "Y"), study_of("c", "Y")
    _, rows = built(a, b, c)
    (_, first), (_, second) = rows.below
    updates = rows.selected(c)
    assert set(updates) == {rows.top, second} and first in rows.every
    assert updates[rows.top].selected == "Y" and updates[second].selected == "c"


def test_a_link_opens_the_rows_of_its_study():
    with gr.Blocks():
        desk, visitors = Desk((*CATALOG, Painting, Growing)), Visitors()
        pages, rows = web_gallery.rows_of(
            (Landscapes, Painting, Growing), lambda study: study_page(study, desk, visitors), lambda tab: None
        )
    for page in pages:
        updates = web.link_updates(pages, rows, {"study": page.study.name})
        assert {row: tabs.selected for row, tabs in updates.items() if row in rows.every} == {
            rows.top: page.study.shelf,
            dict(rows.below)[page.study.shelf]: page.study.name,
        }
    assert not set(web.link_updates(pages, rows, {"study": "<b>"})) & set(rows.every)


def test_every_study_of_the_catalogue_says_where_it_stands():
    assert all(study.shelf != Study.shelf and study.shelf != "Runs" for study in CATALOG)
    assert not {study.shelf for study in CATALOG} & {study.name for study in CATALOG}


def test_the_style_sheet_names_no_other_host():
    text = web_gallery.STYLE.read_text(encoding="utf-8")
    assert ".st-studies" in text and not re.search(r"https?:|@import|//", re.sub(r"/\*|\*/", "", text))
