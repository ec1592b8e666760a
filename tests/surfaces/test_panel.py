"""The notebook panel runs without a browser and without an event loop."""

import asyncio
import base64
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from surfaces.growing import Grading, Growing
from surfaces.turning import Turning, conformers

from studio.files.archive import png_recipe
from studio.studies.fusedream import FuseDream
from studio.studies.landscapes import Landscapes
from studio.surfaces.cli import main
from studio.surfaces.panel import Panel
from studio.surfaces.panel_molecules import MODULE as MOLECULES
from studio.surfaces.panel_molecules import py3dmol_view
from studio.surfaces.panel_network import MODULE


def test_run_and_result():
    panel = Panel(Landscapes.tiny())
    result = panel.run()
    assert result is panel.result and result.step == Landscapes.tiny().steps and result.outcome
    assert panel._repr_mimebundle_()["image/png"][:4] == b"\x89PNG"


def test_knobs_are_widgets_and_attributes():
    panel = Panel(Landscapes())
    panel.set(steps=12, loss="curve")
    assert panel.study.steps == 12 and panel.widgets["loss"].value == "curve"
    panel.widgets["points"].value = 3
    assert panel.study.points == 3
    with pytest.raises(ValueError, match="there are seed"):
        panel.set(step=1)


def test_panel_and_terminal_give_the_same_bytes(tmp_path):
    panel = Panel(Landscapes(steps=5, points=4, seed=11))
    panel.run()
    main(["run", "landscapes", "--steps", "5", "--points", "4", "--seed", "11", "--out", str(tmp_path / "a.png")])
    assert panel.save() == (tmp_path / "a.png").read_bytes()
    assert png_recipe(panel.save()).knobs["seed"] == 11


def test_the_button_runs_beside_the_loop_and_stop_stops():
    panel = Panel(Landscapes(steps=2000, points=200))

    async def story():
        panel.start()
        while panel.result is None or panel.result.step == 0:
            await asyncio.sleep(0.01)
        panel.stop()
        await panel._task

    asyncio.run(story())
    assert panel.result is not None and not panel._go.disabled
    frames = panel._chart.children[0].data[0].y
    assert len(np.asarray(frames)) >= 1


def test_an_impossible_run_leaves_the_panel_usable(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("STUDIO_WEIGHTS", raising=False)
    panel = Panel(FuseDream(weights="biggan-deep-512", device="cpu"))

    async def pressed():
        panel.start()
        await panel._task

    asyncio.run(pressed())
    assert "embedded" in panel._status.value and not panel._go.disabled and panel.result is None
    with pytest.raises(ValueError, match="embedded"):
        panel.run()
    assert not panel._go.disabled


def test_save_before_a_run_says_so():
    with pytest.raises(ValueError, match="no result yet"):
        Panel(Landscapes()).save()


def test_every_chart_stays_and_grows_and_the_members_are_there():
    panel = Panel(Landscapes(steps=30, points=4), per_second=1000)
    panel.run()
    first, second = panel._chart.children
    assert [trace.name for trace in first.data] == ["mean", "worst"]
    assert len(first.data[0].y) == len(second.data[0].y) == 31
    panel.run()
    assert panel._chart.children == (first, second)
    assert panel._members.value.count('<input type="radio"') == 4


def test_a_growing_network_is_shown_and_photographed():
    panel = Panel(Growing(steps=3))
    panel.run()
    assert "Round 3" in panel._network.html and panel._network.html.count('<input type="radio"') == 3 + 3 + 4
    assert panel._repr_mimebundle_()["image/png"][:4] == b"\x89PNG"


@pytest.mark.parametrize("copies", [1, 0])
def test_a_table_is_shown_with_its_network_and_alone(copies):
    panel = Panel(Grading(steps=2, copies=copies))
    panel.run()
    assert panel._network.html.count("<table>") == 1 and "&lt;task&gt; 2</th>" in panel._network.html
    assert panel._network.html.count('<section class="st-net"') == copies
    assert ("image/png" in panel._repr_mimebundle_()) == bool(copies)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_script_of_a_network_runs_as_a_module_of_a_widget():
    chromium = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    panel = Panel(Growing(steps=3))
    panel.run()
    code = base64.b64encode(MODULE.encode()).decode()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.evaluate(
            """async ([code, html]) => {
                const {render} = (await import(`data:text/javascript;base64,${code}`)).default;
                let changed = null;
                window.model = {html: '', get: name => window.model[name], on: (event, then) => { changed = then; }};
                render({model: window.model, el: document.body});
                window.model.html = html;
                changed();
            }""",
            [code, panel._network.html],
        )
        slider, words = page.locator(".st-net-budget"), page.locator(".st-net-budget-words")
        slider.focus()
        page.keyboard.press("End")
        everything = words.inner_text()
        page.keyboard.press("Home")
        assert slider.is_visible() and "pays 0 splits" in words.inner_text() != everything
        browser.close()


def test_molecules_get_their_viewer_when_there_are_some_and_are_photographed():
    assert Panel(Turning())._molecules is None
    panel = Panel(Turning(steps=3))
    panel.run()
    assert panel._molecules in panel._below.children and panel._molecules.html.count("data-conformer") == 5
    assert panel._members.value.count('<input type="radio"') == 5
    assert panel._repr_mimebundle_()["image/png"][:4] == b"\x89PNG"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_views_of_molecules_work_without_any_request():
    pytest.importorskip("py3Dmol")
    chromium = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    panel = Panel(Turning(steps=3))
    panel.run()
    code = base64.b64encode(MOLECULES.encode()).decode()
    hostile = "</script><img src=x onerror=alert(1)>"
    scene = replace(conformers(3), title=hostile, smiles=hostile, captions=(hostile,) * 3, field=hostile)
    view = py3dmol_view(scene).write_html()
    assert hostile not in view and "alert" not in view
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page, faults = browser.new_context(offline=True).new_page(), []
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda ask: None if ask.url.startswith("data:") else faults.append(ask.url[:80]))
        page.evaluate(
            """async ([code, html]) => {
                const {render} = (await import(`data:text/javascript;base64,${code}`)).default;
                let changed = null;
                window.model = {html: '', get: name => window.model[name], on: (event, then) => { changed = then; }};
                render({model: window.model, el: document.body});
                window.model.html = html;
                changed();
            }""",
            [code, panel._molecules.html],
        )
        page.locator(".st-mol-host canvas").wait_for()
        page.locator("[data-act=on]").click()
        assert page.locator(".st-mol-words").inner_text().startswith("2 of 5")
        page.set_content(f"<!DOCTYPE html><body>{view}")
        page.wait_for_function("document.querySelector('canvas')?.width > 300")
        assert not page.get_by_text("failed to load").count() and faults == []
        browser.close()


def test_py3dmol_views_refuse_in_sentences(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3Dmol", None)
    with pytest.raises(ValueError, match="pip install py3Dmol"):
        py3dmol_view(conformers())
    monkeypatch.undo()
    pytest.importorskip("py3Dmol")
    with pytest.raises(ValueError, match="no conformer"):
        py3dmol_view(conformers(0))
