"""A pruned network on every surface: on the page while a run goes on, in a notebook, and in a page taken along."""

import base64
import os
import shutil
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pytest
from render.pruned import imitated, pruned
from surfaces.growing import Growing

from studio.core.controls import Knob, Range
from studio.desk.desk import Desk
from studio.desk.exports import export, formats
from studio.scenes import Curves, Series
from studio.surfaces.panel import Panel
from studio.surfaces.panel_network import MODULE
from studio.surfaces.web import gallery, open_server

CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCENE = pruned(dimensions=(4, 16))
BROWSER = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it, or name it in STUDIO_CHROMIUM"),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
    ),
]


@dataclass(frozen=True)
class Thinning(Growing):
    """Every step is ten moments more of a layer's path."""

    name: ClassVar[str] = "thinning"
    title: ClassVar[str] = "Thinning"
    summary: ClassVar[str] = "Every step is ten moments more."
    steps: Annotated[int, Range(1, 1000), Knob("Steps")] = 3

    def view(self, snapshot):
        x = np.array([1.0, 10.0, 100.0])
        series = (Series("seen", x, x, dots=True), Series("said", x, x))
        chart = Curves("Cost", "size", "seconds", series, log_x=True)
        return replace(SCENE, imitation=imitated(64, 8, 10 * (snapshot.step + 1))), chart


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk((Thinning,), tmp_path_factory.mktemp("runs"), workers=0)


@pytest.fixture(scope="module")
def row(desk):
    run_id = desk.submit(Thinning())
    assert list(desk.watch(run_id))
    return desk.row(run_id)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """Yield a tab of a phone's width in which nothing may go wrong."""
    page, faults = chromium.new_page(viewport={"width": 390, "height": 900}), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda note: faults.append(note.text) if note.type == "error" else None)
    yield page
    page.close()
    assert faults == []


def asked(page):
    """Move both sliders and the box by keys, and return the sentences that follow."""
    page.locator(".st-prune-moment").locator("visible=true").press("Home")
    page.locator(".st-prune-decay").locator("visible=true").press("Home")
    page.locator(".st-prune-log").locator("visible=true").press("Space")
    return page.locator(".st-prune-words").locator("visible=true").all_inner_texts()


def told(words):
    assert words[0].startswith("Step 1: added channel ") and "Straight on this axis: power law" in words[1]
    assert "At effective dimension 4 " in words[1]
    return True


def test_it_is_exported_with_its_picture_its_film_and_its_table(desk, row):
    assert formats(desk, row) == ("png", "gif", "mp4", "csv", "html", "py")
    assert export(desk, row, "png")[:4] == b"\x89PNG"
    assert b"A network that is pruned: path of hidden 1,step 1: add" in export(desk, row, "csv")


def test_a_panel_shows_and_photographs_it():
    panel = Panel(Thinning())
    panel.run()
    panel.run()
    assert panel._network.html.count('<section class="st-prune"') == 1
    assert panel._chart.children[0].data[0].mode == "markers" and panel._chart.children[0].data[1].mode == "lines"
    assert panel._repr_mimebundle_()["image/png"][:4] == b"\x89PNG"


class TestBrowser:
    """What only a browser can tell."""

    pytestmark = BROWSER

    def test_a_page_taken_along_answers_under_its_policy(self, desk, row, tab, tmp_path):
        path = tmp_path / "page.html"
        path.write_bytes(export(desk, row, "html"))
        tab.goto(path.as_uri())
        assert told(asked(tab))
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390

    def test_the_script_runs_as_a_module_of_a_widget(self, tab):
        panel = Panel(Thinning())
        panel.run()
        code = base64.b64encode(MODULE.encode()).decode()
        tab.evaluate(
            """async ([code, html]) => {
                const {render} = (await import(`data:text/javascript;base64,${code}`)).default;
                render({model: {get: () => html, on: () => {}}, el: document.body});
            }""",
            [code, panel._network.html],
        )
        assert told(asked(tab))

    def test_a_page_keeps_the_moment_chosen_while_the_run_goes_on(self, tab, tmp_path):
        demo = gallery((Thinning,), Desk((Thinning,), tmp_path, workers=0))
        tab.goto(f"{open_server(demo)}?study=thinning&steps=8&wait=0.4")
        tab.get_by_text("8 steps.").locator("visible=true").first.wait_for()
        button = tab.get_by_role("button", name="Run", exact=True).locator("visible=true").first
        button.click()
        tab.locator(".st-prune-moment").locator("visible=true").wait_for()
        words = asked(tab)
        assert told(words)
        tab.locator(".st-done").locator("visible=true").first.wait_for()
        assert tab.locator(".st-prune-words").locator("visible=true").all_inner_texts() == words
        assert tab.locator(".st-prune-moment").locator("visible=true").get_attribute("max") == "89"
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        demo.close(verbose=False)
