"""A pruned network in a real headless Chromium: the script draws what Python draws, by mouse and by keyboard."""

import json
import os
import re
import shutil
from dataclasses import replace
from html import unescape

import pytest
from render.pruned import imitated, named, pruned

from studio.render.pruning import SCRIPT, pruning_html
from studio.render.pruning_fits import fit_words
from studio.render.pruning_imitation import imitation_html, sentence
from studio.scenes import Pruning

CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCENE = pruned()
EMPTY = Pruning("nothing yet", (), (0.0, 0.0), None, ())
SEEN = """() => [...document.querySelectorAll(`.st-prune path, .st-prune circle, .st-prune-words, .st-prune-close svg,
    .st-prune-close output, .st-prune-x span, .st-prune-y span, .st-prune-bars > *`)].map(e => [e.getAttribute('d'),
    e.getAttribute('cx'), e.getAttribute('viewBox'), e.getAttribute('aria-label'), e.value,
    getComputedStyle(e).getPropertyValue('--h'), e.getAttribute('data-kind'), e.textContent, e.style.left])"""


@pytest.fixture(scope="module")
def tab():
    if CHROMIUM is None:
        pytest.skip("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 390, "height": 844})
        browser.close()


def shapes(tab):
    """Return every drawing and every sentence that moves, as the page has it now."""
    return tab.evaluate(SEEN)


def loaded(tab, scene):
    tab.set_content(f"<body style='margin:0'><main>{pruning_html(scene, 'x')}</main>")
    assert tab.locator("input[type=range], input[type=checkbox]").evaluate_all("all => all.every(e => !e.offsetWidth)")
    before = shapes(tab)
    tab.evaluate(f"{SCRIPT}\nwindow.refresh = studioPruning(document.querySelector('main'));")
    return before


def moved(tab, name, position):
    tab.locator(f".st-prune-{name}").evaluate(
        "(e, to) => { e[e.type === 'range' ? 'value' : 'checked'] = to; "
        "e.dispatchEvent(new Event('input', {bubbles: true})); }", position,
    )  # fmt: skip


def test_the_script_draws_what_python_drew(tab):
    before = loaded(tab, SCENE)
    assert shapes(tab) == before, "the script changes nothing before a slider is moved"
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    path = SCENE.imitation
    for moment in (0, 7, 22):
        cut = replace(
            path, steps=path.steps[: moment + 1], touched=path.touched[: moment + 1], kinds=path.kinds[: moment + 1],
            kept=path.kept[: moment + 1], errors=path.errors[: moment + 1], weights=path.weights[: moment + 1],
        )  # fmt: skip
        moved(tab, "moment", moment)
        assert tab.locator(".st-prune-moment-words").inner_text() == sentence(path, moment)
        bars = tab.locator(".st-prune-bars > input").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
        drawn = imitation_html(cut, "x")
        assert bars == re.findall(r'type="radio"[^>]*aria-label="([^"]*)"', drawn)
        for size in range(3):
            line = tab.locator(f".st-prune-s{size}").get_attribute("d")
            assert line.count("M") == re.search(rf'st-prune-s{size}" d="([^"]*)"', drawn)[1].count("M")


def test_the_decays_are_drawn_by_the_script_as_by_python(tab):
    loaded(tab, SCENE)
    data = json.loads(unescape(re.search(r'data-prune="([^"]*)"', pruning_html(SCENE, "x"))[1]))
    frames = data["decay"]["frames"]
    for index in (0, 1, 2):
        moved(tab, "decay", index)
        for log in (True, False):
            moved(tab, "log", log)
            decay = SCENE.decays[index]
            assert tab.locator(".st-prune-decay-words").inner_text() == fit_words(decay, log)
            frame = frames[index][log]
            for rule, line in enumerate(frame["lines"]):
                assert tab.locator(f".st-prune-large path.st-prune-c{rule}").get_attribute("d") == line
            assert tab.locator(".st-prune-large .st-prune-x span").all_inner_texts() == [text for _, text in frame["x"]]
        told = f"calibration values {decay.points} · effective dimension {decay.dimension}"
        assert tab.locator(".st-prune-points").inner_text() == told


def test_what_was_chosen_is_kept_while_the_run_goes_on(tab):
    loaded(tab, SCENE)
    moved(tab, "moment", 12)
    moved(tab, "decay", 1)
    moved(tab, "log", True)
    tab.locator(".st-prune-bars > input").nth(1).check()
    channel = tab.locator(".st-prune-bars > input:checked").input_value()
    assert tab.locator(".st-prune-ring").is_visible()
    longer = replace(SCENE, imitation=imitated(64, 8, 55), macs=(5e6, 1e6))
    replace_with = "text => { document.querySelector('main').innerHTML = text; window.refresh(); }"
    tab.evaluate(replace_with, pruning_html(longer, "x"))
    assert tab.locator(".st-prune-moment-words").inner_text() == sentence(longer.imitation, 12)
    assert tab.locator(".st-prune-moment").input_value() == "12" and tab.locator(".st-prune-decay").input_value() == "1"
    assert tab.locator(".st-prune-log").is_checked()
    assert tab.locator(".st-prune-bars > input:checked").input_value() == channel
    other = replace(longer, imitation=imitated(32, 4, 9, layer="another layer"))
    tab.evaluate(replace_with, pruning_html(other, "x"))
    assert tab.locator(".st-prune-moment").input_value() == "8", "a new layer is followed from its last moment"
    tab.evaluate(replace_with, pruning_html(EMPTY, "x"))
    assert tab.locator(".st-prune").count() == 1


def test_the_keyboard_moves_everything(tab):
    loaded(tab, SCENE)
    tab.locator(".st-prune-moment").focus()
    tab.keyboard.press("Home")
    assert tab.locator(".st-prune-moment-words").inner_text() == sentence(SCENE.imitation, 0)
    for _ in range(9):
        tab.keyboard.press("ArrowRight")
    assert tab.locator(".st-prune-moment-words").inner_text() == sentence(SCENE.imitation, 9)
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    tab.keyboard.press("ArrowRight")
    chosen = tab.locator(".st-prune-bars > input:checked")
    assert chosen.count() == 1 and tab.locator(".st-prune-ring").is_visible()
    assert tab.locator(".st-prune-bars > span:visible").inner_text() == chosen.get_attribute("aria-label")


def test_a_hostile_name_does_nothing_in_a_browser(tab):
    tab.evaluate("window.hit = 0")
    loaded(tab, named(SCENE, "<img src=x onerror='window.hit = 1'>"))
    moved(tab, "moment", 3)
    moved(tab, "decay", 0)
    assert tab.evaluate("window.hit") in (0, None) and tab.locator(".st-prune img").count() == 0
