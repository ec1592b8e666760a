"""The pages in a real headless Chromium: they run, hold, step, stop, restore, stay at home, and show no markup."""

import http.client
import os
import re
import shutil
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from surfaces.cable import Cable
from surfaces.growing import Growing
from surfaces.painting import Painting

from studio.catalog import CATALOG
from studio.files.archive import png_recipe
from studio.surfaces.web import gallery, open_server

CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
WAIT = 30_000
NAMES = {study.name for study in CATALOG}
WIDEST = """() => [...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > 391)
    .map(e => e.tagName + '.' + e.className + ' ' + e.getBoundingClientRect().right).slice(0, 12)"""
MARKUP = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "${alert(1)}{{constructor.constructor('alert(1)')()}}",
)
# Gradio leaves event loops and sockets to the collector.
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it, or name it in STUDIO_CHROMIUM"),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
    ),
]


@pytest.fixture(scope="module")
def address():
    demo = gallery((*CATALOG, Painting, Growing))
    yield open_server(demo)
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, closing_browser(playwright) as chromium:
        yield chromium


def closing_browser(playwright):
    return closing(playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS))


class Visit:
    """One tab, and everything suspicious that happened in it."""

    def __init__(self, browser, address, query="", width=1280, height=860):
        self.faults = []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(WAIT)
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.faults.append(f"page error {error}"))
        self.page.on("console", lambda note: self.faults.append(note.text) if note.type == "error" else None)
        self.page.goto(address + query)
        self.button("Run").wait_for()
        self.page.wait_for_function("document.querySelector('.st-needs') !== null")

    def _request(self, request):
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.faults.append(f"request to {request.url[:200]}")

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True).locator("visible=true").first

    def tab(self, title):
        return self.page.get_by_role("tab", name=title, exact=True)

    def fill(self, label, value):
        self.page.get_by_label(label).locator("visible=true").first.fill(value)

    def run(self):
        self.button("Run").click()

    def status(self, kind, wait=WAIT):
        line = self.page.locator(f".st-{kind}").locator("visible=true").first
        line.wait_for(timeout=wait)
        return line.inner_text()

    def picture(self):
        picture = self.page.locator(".st-pictures img").locator("visible=true").first
        picture.wait_for()
        return picture.get_attribute("src")


@pytest.fixture
def visit(browser, address):
    made = []

    def opened(query="", **size):
        made.append(Visit(browser, address, query, **size))
        return made[-1]

    yield opened
    for tab in made:
        tab.page.close()
        assert tab.faults == []


def step_in(text):
    return int(re.search(r"step ([\d,]+) of", text)[1].replace(",", ""))


def test_landscapes_run_to_the_end(visit):
    tab = visit("?study=landscapes&steps=60")
    tab.run()
    tab.page.locator(".st-plane .js-plotly-plot").locator("visible=true").first.wait_for()
    assert "step 60 of 60" in tab.status("done") and "mean loss" in tab.status("outcome")
    tab.page.wait_for_function("document.querySelectorAll('.st-more .js-plotly-plot .scatterlayer .trace').length > 0")


def test_a_member_can_be_chosen_and_stays_chosen(visit):
    tab = visit("?study=landscapes&steps=40&method=max&points=5")
    tab.page.get_by_label("Also run the plain baseline").locator("visible=true").check()
    tab.run()
    members = tab.page.locator(".st-field input").locator("visible=true")
    members.first.wait_for()
    members.nth(1).press("Space")
    tab.status("done")
    tab.page.wait_for_function("document.querySelectorAll('.st-field input.st-plain').length === 5")
    assert members.count() == 10 and members.nth(1).is_checked()
    card = tab.page.locator(".st-card").locator("visible=true")
    assert card.count() == 1 and card.inner_text().startswith("Point 2 at (")
    members.nth(1).press("ArrowRight")
    assert card.inner_text().startswith("Point 3 at (")


def test_a_growing_network_keeps_what_was_chosen_and_moved(visit):
    tab = visit("?study=growing&steps=12&wait=0.5", width=390)
    tab.run()
    net = tab.page.locator(".st-net").locator("visible=true")
    budget, words = net.locator(".st-net-budget"), net.locator(".st-net-budget-words")
    budget.wait_for()
    neurons = net.locator(".st-net-field > input")
    neurons.nth(1).press("Space")
    chosen, before = net.locator(".st-net-field > input:checked").get_attribute("value"), neurons.count()
    budget.press("End")
    everything = words.inner_text()
    budget.press("Home")
    assert words.inner_text().startswith("A budget of 0 weights pays 0 splits") and "pays 0" not in everything
    tab.status("done")
    assert before < neurons.count() == 3 + 12 + 4 and budget.input_value() == "0" and "pays 0" in words.inner_text()
    assert net.locator(".st-net-field > input:checked").get_attribute("value") == chosen
    card = net.locator(".st-net-card").locator("visible=true")
    assert card.count() == 1 and f"neuron {chosen[2:]}" in card.inner_text()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390, tab.page.evaluate(WIDEST)


def test_diverse_pictures_stand_in_order_and_in_their_trade_off(visit):
    tab = visit("?study=diverse_images&steps=3&images=3&copies=1&basis=2&device=cpu")
    tab.run()
    tab.status("done", wait=4 * WAIT)
    captions = tab.page.locator(".st-pictures figcaption").locator("visible=true").all_inner_texts()
    assert len(captions) == 3 and captions[0].endswith("the best")
    far = [float(re.search(r", ([\d.]+) from the first", caption)[1]) for caption in captions[1:]]
    assert far == sorted(far)
    tab.page.locator(".st-field input").locator("visible=true").first.press("Space")
    assert tab.page.locator(".st-card img").locator("visible=true").count() == 1


def test_a_picture_appears_changes_holds_steps_and_stops(visit, tmp_path):
    tab = visit("?study=painting&steps=1000")
    tab.page.get_by_label("Slow motion").locator("visible=true").check()
    tab.run()
    began = time.monotonic()
    first = tab.picture()
    assert time.monotonic() - began < 20
    tab.page.wait_for_function(
        "old => [...document.querySelectorAll('.st-pictures img')].some(i => i.src !== old)", arg=first
    )
    tab.button("Pause").click()
    held = step_in(tab.status("held"))
    still = tab.picture()
    time.sleep(0.5)
    assert tab.picture() == still and step_in(tab.status("held")) == held
    tab.button("Step").click()
    tab.page.wait_for_function("n => document.body.innerText.includes(`step ${n} of`)", arg=f"{held + 1:,}")
    tab.button("Resume").click()
    tab.status("live")
    tab.button("Stop").click()
    assert "Stopped" in tab.status("stopped")
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save picture").locator("visible=true").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "painting-7.png" and png_recipe(path.read_bytes()).knobs["steps"] == 1000
    tab.fill("Prompt", "something else")
    tab.page.get_by_text("Open a saved picture").locator("visible=true").click()
    tab.page.locator(".st-more input[type=file]").locator("visible=true").or_(
        tab.page.locator(".st-more input[type=file]").last
    ).first.set_input_files(path)
    tab.page.wait_for_function("[...document.querySelectorAll('textarea')].some(box => box.value === 'a red fox')")


def test_a_link_restores_knobs_and_tab(visit):
    tab = visit("?study=painting&prompt=a+%3Cb%3Ecup%3C%2Fb%3E&steps=33&bright=true&seed=12&rate=evil")
    tab.page.wait_for_function("[...document.querySelectorAll('textarea')].some(box => box.value === 'a <b>cup</b>')")
    assert tab.tab("Painting").get_attribute("aria-selected") == "true"
    assert tab.page.get_by_label("Seed", exact=True).locator("visible=true").input_value() == "12"
    assert tab.page.get_by_label("Bright").locator("visible=true").is_checked()
    tab.page.wait_for_function("[...document.querySelectorAll('textarea')].some(box => box.value.includes('seed=12&'))")


def test_markup_stays_text(visit):
    tab = visit("?study=painting&steps=2")
    for prompt in MARKUP:
        tab.fill("Prompt", prompt)
        tab.run()
        tab.page.locator(".st-done").filter(has_text=f"painted {prompt}").locator("visible=true").wait_for()
        assert f"painted {prompt}" in tab.status("done")
        assert tab.page.locator(".st-canvas svg, .st-canvas script, .st-state img").count() == 0


def test_an_error_is_a_sentence_on_the_page(visit):
    tab = visit("?study=painting")
    tab.fill("Prompt", "weights")
    tab.run()
    assert "no weights here: <put> them in a folder" in tab.status("alert")
    assert tab.button("Run").is_enabled()


def test_a_reload_finds_the_run_again_and_so_does_another_tab(visit):
    first = visit("?study=painting&steps=1000&seed=21&nap=0.022")  # it shall outlast a slow reload
    first.run()
    first.picture()
    first.page.wait_for_function("location.search.startsWith('?run=')")
    link = urlsplit(first.page.url).query
    before = step_in(first.status("live"))
    first.faults.clear()
    first.page.reload()
    first.picture()
    assert step_in(first.status("live")) >= before
    # What the old page had under way when it was left is not a fault.
    first.faults.clear()
    first.button("Pause").click()
    held = step_in(first.status("held"))
    second = visit(f"?{link}", width=390, height=844)
    second.picture()
    assert second.tab("Painting").get_attribute("aria-selected") == "true"
    second.page.wait_for_function("[...document.querySelectorAll('input')].some(box => box.value === '21')")
    assert step_in(second.status("held")) == held and second.button("Resume").is_enabled()
    second.button("Stop").click()
    assert "Stopped" in second.status("stopped") and "Stopped" in first.status("stopped")
    first.button("Go on").click()
    assert "painted a red fox" in first.status("done")


def test_a_lost_connection_is_taken_up_again_without_a_reload(browser, address):
    with closing(Cable(urlsplit(address).port)) as cable:
        tab = Visit(browser, f"http://127.0.0.1:{cable.port}/", "?study=painting&steps=1000&seed=22")
        tab.page.get_by_label("Slow motion").locator("visible=true").check()
        tab.run()
        tab.picture()
        cable.pull()
        tab.page.wait_for_timeout(6000)
        cut = step_in(tab.page.locator(".st-status").locator("visible=true").inner_text())
        cable.plug()
        assert 0 < cut < 1000 and "painted a red fox" in tab.status("done", 2 * WAIT)
        tab.page.close()


def test_past_runs_are_found_compared_saved_and_deleted(visit, tmp_path):
    for seed in (31, 32):
        tab = visit(f"?study=painting&steps=4&seed={seed}&prompt=a+<b>comparable</b>+fox")
        tab.run()
        tab.status("done")
    tab.tab("Runs").click()
    tab.fill("Search", "comparable")
    cards = tab.page.locator("[data-run]").locator("visible=true")
    tab.page.wait_for_function("document.querySelectorAll('[data-run]').length === 2")
    assert "a <b>comparable</b> fox" in cards.first.inner_text()
    cards.first.click()
    cards.last.press("Enter")
    tab.page.locator(".st-differ").locator("visible=true").wait_for()
    assert tab.page.locator(".st-differ tr").all_inner_texts() == ["seed\t32\t31"]
    assert tab.page.locator(".st-detail .st-pictures img").locator("visible=true").count() == 2
    assert [card.get_attribute("data-place") for card in cards.all()] == ["1", "2"]
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save as PNG").click()
    download.value.save_as(tmp_path / "a.png")
    assert png_recipe((tmp_path / "a.png").read_bytes()).knobs["seed"] == 32
    tab.button("Repeat it").click()
    tab.page.get_by_text("✓ Repeated: the bytes agree at step 4").wait_for()
    tab.page.on("dialog", lambda dialog: None)
    tab.page.evaluate("window.confirm = () => true")
    tab.button("Delete").click()
    tab.page.wait_for_function("document.querySelectorAll('[data-run]').length === 1")


def test_nothing_overflows_on_a_phone(visit):
    tab = visit(f"?study={CATALOG[-1].name}", width=390, height=844)
    tab.tab(CATALOG[-1].title).and_(tab.page.locator("[aria-selected=true]")).wait_for()
    for study in CATALOG:
        tab.tab(study.shelf).click()
        tab.tab(study.title).click()
        tab.page.locator(".st-header h2", has_text=study.title).locator("visible=true").wait_for()
        tab.page.wait_for_function("[...document.querySelectorAll('.st-needs')].some(line => line.offsetParent)")
        assert tab.tab("Runs").is_visible() and tab.page.get_by_label("More tabs").count() == 0
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390, tab.page.evaluate(WIDEST)


def test_the_arrow_keys_go_along_a_row_of_tabs(visit):
    tab = visit()
    tab.tab(CATALOG[0].shelf).press("ArrowLeft")
    tab.page.keyboard.press("Enter")
    tab.page.get_by_label("Search").wait_for()
    assert tab.tab("Runs").get_attribute("aria-selected") == "true"
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("Enter")
    tab.tab(CATALOG[0].title).press("ArrowRight")
    tab.page.keyboard.press("Space")
    tab.tab(CATALOG[1].title).and_(tab.page.locator("[aria-selected=true]")).wait_for()


def test_a_phone_sees_the_picture_first(visit):
    tab = visit("?study=painting&steps=3", width=390, height=844)
    tab.run()
    tab.status("done")
    picture = tab.page.locator(".st-pictures img").locator("visible=true").first.bounding_box()
    button = tab.button("Run").bounding_box()
    assert picture["y"] < button["y"] and picture["width"] > 280


def test_programs_use_the_named_endpoint(address):
    from gradio_client import Client

    client = Client(address, verbose=False)
    path, outcome = client.predict(prompt="a cup", steps=2, seed=3, api_name="/painting")
    assert outcome == "painted a cup" and png_recipe(Path(path).read_bytes()).knobs["seed"] == 3
    run = client.predict('{"study": "painting", "knobs": {"steps": 900, "prompt": "a cup"}}', api_name="/submit")
    assert client.predict(run, api_name="/status")["state"] in ("queued", "running")
    client.predict(run, api_name="/stop")
    while (status := client.predict(run, api_name="/status"))["state"] in ("queued", "running"):
        time.sleep(0.1)
    assert status["state"] == "stopped" and status["study"] == "painting"
    client.close()


def test_other_hosts_are_turned_away_and_headers_guard_the_page(address):
    parts = urlsplit(address)
    for host, status in (("evil.example", 400), (parts.netloc, 200)):
        with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)) as connection:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Strict" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "http://evil.example"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Origin": "null"}, 403),
     ({}, 404), ({"Origin": "own"}, 404)],
)  # fmt: skip
def test_no_other_site_gives_orders_here(address, headers, status):
    parts = urlsplit(address)
    headers = {name: value.replace("own", address.rstrip("/")) for name, value in headers.items()}
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)) as connection:
        connection.request("POST", "/gradio_api/run/no_such", body="{}", headers=headers)
        answer = connection.getresponse()
        assert b"Traceback" not in answer.read()
        assert (answer.status == 403) == (status == 403)


@pytest.mark.skipif("fusedream" not in NAMES, reason="FuseDream is not in the catalog yet")
def test_fusedream_dreams_in_the_browser(visit):
    tab = visit("?study=fusedream&steps=3&copies=2&basis=2")
    tab.run()
    first = tab.picture()
    assert first.startswith("data:image/png;base64,")
    assert tab.status("done", 3 * WAIT) and tab.status("outcome")
    assert tab.picture() != "" and tab.page.locator(".st-more .js-plotly-plot").locator("visible=true").count() == 1
