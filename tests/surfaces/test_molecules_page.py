"""Molecules in a real headless Chromium: every control does what it says, and the camera and the choices stay."""

import json
import os
import shutil
from dataclasses import replace
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from surfaces.odd_prompts import ODD_PROMPTS
from surfaces.painting import Painting
from surfaces.turning import Turning, conformers

from studio.desk.desk import Desk
from studio.render.molecules import KEEP_MOLECULES, SCRIPT, VIEWER, molecules_html, viewer_script
from studio.render.molecules_text import clean
from studio.surfaces.web import gallery, open_server

CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
STUDIES = (Turning, Painting)
HOSTILE = (
    "</script><img src=x onerror=alert(1)>", "$$$$", "`${alert(1)}`", "\u202egnp.exe\u202c", "a\n<b>\r\nc", "' onx='",
    *ODD_PROMPTS[:60],
)  # fmt: skip
# What the first viewer that is on the page shows.
SEEN = """() => { const deck = [...studioViews].find(deck => deck.section.offsetWidth); return {
    view: deck.viewer.getView(), n: deck.models.length, chosen: deck.chosen, all: deck.all, look: deck.look,
    hydrogens: deck.hydrogens, moment: deck.moment, playing: deck.timer !== null,
    shown: deck.models.map(model => model.selectedAtoms({}).filter(({style}) => style.stick || style.sphere).length),
    spheres: deck.models.map(model => model.selectedAtoms({}).filter(atom => atom.style.sphere).length),
    places: deck.models.map(model => model.selectedAtoms({}).map(atom => [atom.x, atom.y, atom.z]))}; }"""
VIEWS = "() => [...studioViews].filter(deck => deck.section.offsetWidth).map(deck => deck.viewer.getView())"
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it, or name it in STUDIO_CHROMIUM"),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    demo = gallery(STUDIES, Desk(STUDIES, tmp_path_factory.mktemp("runs"), workers=0))
    yield open_server(demo)
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """Return what opens a tab that gathers dialogs, errors and requests to elsewhere; there must be none."""
    tabs = []

    def opened(width=1280):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(30_000)
        page.faults = []
        page.on("dialog", lambda dialog: (page.faults.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda note: page.faults.append(note.text) if note.type == "error" else None)
        page.on("request", lambda ask: page.faults.append(ask.url) if foreign(ask.url) else None)
        tabs.append(page)
        return page

    yield opened
    for page in tabs:
        faults = page.faults
        page.close()
        assert faults == []


def foreign(url):
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob", "about") and parts.hostname not in ("127.0.0.1", "localhost")


def seen(page):
    return page.evaluate(SEEN)


def here(page, selector):
    return page.locator(selector).locator("visible=true")


def button(page, name):
    return page.get_by_role("button", name=name, exact=True).locator("visible=true").first


@pytest.fixture
def ran(tab, address):
    """Return what opens a run of the study at its end, its viewer mounted."""

    def opened(query="", width=1280, baseline=False, ended=True):
        page = tab(width)
        page.goto(f"{address}?study=turning{query}")
        button(page, "Run").wait_for()
        page.wait_for_function("document.querySelector('.st-needs') !== null")
        if baseline:
            page.get_by_label("Also run the plain baseline").locator("visible=true").check()
        button(page, "Run").click()
        if ended:
            here(page, ".st-done").first.wait_for()
        here(page, ".st-mol-host canvas").first.wait_for()
        page.wait_for_function("globalThis.studioViews?.size > 0")
        return page

    return opened


def test_camera_and_choices_survive_a_run(ran):
    page = ran("&steps=60&wait=0.1", ended=False)
    button(page, "Pause").click()
    button(page, "Resume").wait_for()
    page.evaluate("document.querySelector('.st-mol-host canvas').mark = 1")
    here(page, "[data-act=all]").click()
    here(page, "[data-act=on]").click()
    here(page, "[data-act=on]").click()
    here(page, ".st-mol-style").select_option("stick")
    here(page, ".st-mol-hydrogens").uncheck()
    stage = here(page, ".st-mol-stage")
    stage.focus()
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "+"):
        page.keyboard.press(key)
    before = seen(page)
    button(page, "Resume").click()
    stage.focus()
    here(page, ".st-done").first.wait_for()
    page.wait_for_timeout(400)
    after = seen(page)
    for name in ("view", "chosen", "all", "look", "hydrogens", "n"):
        assert after[name] == before[name], name
    assert after["places"] != before["places"] and after["all"] and after["look"] == "stick"
    assert page.evaluate("document.querySelectorAll('.st-mol-host canvas').length") == 1
    assert page.evaluate("document.querySelector('.st-mol-host canvas').mark") == 1
    assert page.evaluate("document.activeElement.className") == "st-mol-stage"


def test_every_control_does_what_it_says(ran):
    page = ran("&steps=12")
    order = page.evaluate("JSON.parse(document.querySelector('.st-mol').dataset.mol).order")
    words, stage = here(page, ".st-mol-words"), here(page, ".st-mol-stage")
    assert seen(page)["shown"] == [16 if place == order[0] else 0 for place in range(5)]
    assert words.inner_text().startswith("1 of 5 · Benzamide: conformer ") and button(page, "Before").is_disabled()
    button(page, "Next").click()
    assert seen(page)["chosen"] == order[1] and words.inner_text().startswith("2 of 5")
    stage.press("ArrowRight")
    assert seen(page)["chosen"] == order[2]
    stage.press("ArrowLeft")
    button(page, "Before").click()
    assert seen(page)["chosen"] == order[0]
    here(page, ".st-mol-rank").press("End")
    assert seen(page)["chosen"] == order[4] and button(page, "Next").is_disabled()
    here(page, f'tr[data-conformer="{order[3]}"] td:last-child').click()
    assert seen(page)["chosen"] == order[3] and here(page, ".st-mol-rank").input_value() == "3"
    here(page, ".st-mol-side input:checked").press("ArrowUp")
    assert seen(page)["chosen"] == order[2]
    assert not here(page, ".st-mol-legend").count()
    button(page, "All").click()
    assert seen(page)["shown"] == [16 if place == order[2] else 9 for place in range(5)]
    assert "kcal/mol above the lowest" in here(page, ".st-mol-legend").inner_text()
    button(page, "One").click()
    assert seen(page)["shown"] == [16 if place == order[2] else 0 for place in range(5)]
    here(page, ".st-mol-hydrogens").uncheck()
    assert sum(seen(page)["shown"]) == 9
    for look, spheres in (("stick", 0), ("sphere", 9), ("line", 0), ("ball", 9)):
        here(page, ".st-mol-style").select_option(look)
        assert seen(page)["look"] == look and sum(seen(page)["spheres"]) == spheres
    first = seen(page)["view"]
    stage.press("Shift+ArrowRight")
    stage.press("-")
    assert seen(page)["view"] != first
    button(page, "Reset view").click()
    assert seen(page)["view"] == pytest.approx(first)


def test_the_optimisation_plays_holds_and_slides(ran):
    page = ran("&steps=40")
    end = seen(page)["places"]
    here(page, "[data-act=play]").click()
    page.wait_for_timeout(300)
    assert here(page, "[data-act=play]").inner_text() == "Pause"
    assert seen(page)["playing"] and seen(page)["places"] != end
    here(page, "[data-act=play]").click()
    held = seen(page)
    page.wait_for_timeout(300)
    assert seen(page)["moment"] == held["moment"] and not held["playing"]
    here(page, "[data-act=play]").click()
    page.wait_for_function("[...studioViews].every(deck => deck.moment === null)")
    assert seen(page)["places"] == end and here(page, "[data-act=play]").inner_text() == "Play"
    slider = here(page, ".st-mol-moment")
    slider.press("Home")
    assert seen(page)["moment"] == 0 and seen(page)["places"] != end
    slider.press("End")
    assert seen(page)["moment"] is None and seen(page)["places"] == end


def test_the_mouse_turns_and_the_wheel_scrolls_until_the_view_is_clicked(ran):
    page = ran()
    box = here(page, ".st-mol-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    first = seen(page)["view"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, 60)
    page.wait_for_timeout(200)
    assert seen(page)["view"] == first and page.evaluate("scrollY") > 0
    page.evaluate("scrollTo(0, 0)")
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=4)
    page.mouse.up()
    turned = seen(page)["view"]
    assert turned[4:] != first[4:]
    page.mouse.wheel(0, 60)
    page.wait_for_timeout(200)
    assert seen(page)["view"][3] != turned[3]


def test_a_member_chooses_its_conformer_and_the_other_way_round(ran):
    page = ran()
    points = here(page, ".st-field input")
    points.nth(3).press("Space")
    assert seen(page)["chosen"] == 3 and here(page, ".st-mol-side input:checked").input_value() == "3"
    here(page, 'tr[data-conformer="1"]').click()
    assert points.nth(1).is_checked() and not points.nth(3).is_checked()
    assert here(page, ".st-card").inner_text() == "Benzamide: conformer 2"
    here(page, ".st-mol-stage").press("ArrowRight")
    assert here(page, ".st-field input:checked").input_value() == str(seen(page)["chosen"])


def test_the_baseline_stands_beside_with_its_camera_linked(ran):
    page = ran(baseline=True)
    page.wait_for_function("[...studioViews].filter(deck => deck.viewer).length === 2")
    here(page, ".st-mol-stage").nth(1).press("Shift+ArrowRight")
    one, other = page.evaluate(VIEWS)
    assert one == pytest.approx(other)
    page.locator(".st-field input.st-plain").locator("visible=true").nth(2).press("Space")
    chosen = page.evaluate("[...studioViews].map(deck => deck.chosen)")
    assert chosen == [None, 2] and "Plain baseline" in here(page, ".st-mol h4").nth(1).inner_text()
    here(page, '.st-mol:nth-of-type(2) tr[data-conformer="1"]').click()
    assert here(page, ".st-field input:checked").get_attribute("value") == "plain1"


def test_runs_stand_side_by_side_and_turn_together(ran):
    page = ran("&seed=1")
    button(page, "Surprise me").click()
    page.wait_for_timeout(300)
    button(page, "Run").click()
    page.get_by_role("tab", name="Runs").click()
    cards = page.locator("[data-run]")
    cards.nth(1).wait_for()
    cards.nth(0).click()
    cards.nth(1).click()
    page.wait_for_function("[...studioViews].filter(deck => deck.viewer && deck.section.offsetWidth).length === 2")
    page.wait_for_timeout(500)
    here(page, ".st-mol-stage").nth(0).press("Shift+ArrowRight")
    one, other = page.evaluate(VIEWS)
    assert one == pytest.approx(other)
    button(page, "Save as PNG").wait_for()
    page.get_by_label("Format").locator("visible=true").click()
    assert {"SDF", "XYZ"} <= {text.upper() for text in page.get_by_role("option").all_inner_texts()}


def test_conformers_are_saved_as_text_where_there_are_some(ran, tab, address):
    page = ran()
    for kind, start in (("SDF", "Benzamide, conformer 1\n"), ("XYZ", "16\n")):
        with page.expect_download() as found:
            button(page, f"Save {kind}").click()
        assert found.value.suggested_filename == f"turning-7.{kind.lower()}"
        with open(found.value.path(), encoding="utf-8") as stream:
            assert stream.read().startswith(start)
    other = tab()
    other.goto(f"{address}?study=painting")
    button(other, "Run").wait_for()
    assert not here(other, ".st-texts button").count() and not other.evaluate("'$3Dmol' in globalThis")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_with_molecules_fits_its_screen(ran, width):
    page = ran("&members=24", width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.st-mol-scroll'))")
    sizes = page.evaluate(
        "[...document.querySelectorAll('.st-mol-bar button')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 34


@pytest.mark.parametrize("members", [0, 1])
def test_few_conformers_have_few_controls(tab, address, members):
    page = tab()
    page.goto(f"{address}?study=turning&members={members}")
    button(page, "Run").wait_for()
    button(page, "Run").click()
    here(page, ".st-done").first.wait_for()
    if members:
        here(page, ".st-mol-host canvas").wait_for()
        assert button(page, "Reset view").is_visible() and not here(page, ".st-mol-rank, [data-act=all], tr").count()
    else:
        assert (
            here(page, ".st-mol-note").inner_text() == "No conformer yet." and not here(page, ".st-mol-stage").count()
        )


def test_the_viewer_comes_from_the_studio_itself_with_its_headers(address):
    with urlopen(f"{address}{VIEWER}") as answer:
        assert answer.read().decode() == viewer_script()
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["x-content-type-options"] == "nosniff" and "content-security-policy" in answer.headers


def test_the_viewer_is_asked_for_below_the_path_of_the_page(tab):
    page, asked = tab(), []
    value = json.dumps(molecules_html(conformers(), "g")).replace("<", "\\u003c")
    keep = f"const element = document.body, props = {{value: {value}}}, watch = () => null;\n{KEEP_MOLECULES}"

    def answer(route):
        path = urlsplit(route.request.url).path
        asked.append(path)
        if path == "/lab/studio/":
            return route.fulfill(body=f"<!DOCTYPE html><body><script>{keep}</script>", content_type="text/html")
        return route.fulfill(body=viewer_script(), content_type="text/javascript")

    page.route("**/*", answer)
    page.goto("http://localhost/lab/studio/?run=1")
    page.locator(".st-mol-host canvas").wait_for()
    assert asked == ["/lab/studio/", f"/lab/studio/{VIEWER}"]


def test_sixty_hostile_texts_stay_text(tab):
    page = tab(300)
    page.set_content(
        f"<body><script>{viewer_script()}</script><script>{SCRIPT}\n"
        "globalThis.show = studioMolecules(document.body, async () => $3Dmol);</script>"
    )
    assert len(HOSTILE) >= 50
    page.evaluate("html => show(html)", molecules_html(conformers(3), "g"))
    page.locator(".st-mol-host canvas").wait_for()
    for words in HOSTILE:
        scene = replace(conformers(3), title=words, smiles=words, captions=(words,) * 3, field=words)
        title, told, strange = page.evaluate(
            """html => { show(html); const find = name => document.querySelector(name);
                find('[data-act=on]').click(); find('[data-act=back]').click();
                return [find('h4').textContent, find('.st-mol-words').textContent,
                    document.querySelectorAll('img, svg, iframe, .st-mol script, [onfocus]').length]; }""",
            molecules_html(scene, words),
        )
        assert title == clean(words, 200) and strange == 0
        assert told.startswith("1 of 3 · ") and (not title or told.endswith(title))
    page.wait_for_timeout(300)


@pytest.mark.parametrize(
    "words", ["</script><img src=x onerror=alert(1)>", "{{1+1}}${alert(1)}`", "' onfocus='alert(1)"]
)
def test_hostile_words_in_a_knob_stay_words_on_the_page(ran, words):
    from urllib.parse import quote

    page = ran(f"&words={quote(words)}")
    assert here(page, ".st-mol h4").inner_text() == words
    here(page, ".st-mol-stage").press("ArrowRight")
    page.wait_for_timeout(200)
    assert page.locator("img[src=x]").count() == 0


def test_a_browser_without_webgl_says_so(tab):
    page = tab()
    page.set_content(
        "<body>" + molecules_html(conformers(), "g") + "<script>HTMLCanvasElement.prototype.getContext = () => null;"
        f"{SCRIPT}\nstudioMolecules(document.body, async () => null);</script>"
    )
    page.get_by_text("This browser shows no 3-D view").wait_for()
    page.locator("[data-act=on]").click()
    assert page.locator(".st-mol-words").inner_text().startswith("2 of 5")
