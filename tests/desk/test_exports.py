"""Kept runs as files: each format opens again, holds what the run showed, and carries nothing that could act."""

import ast
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from desk.counting import Counting
from PIL import Image
from surfaces.growing import Grading, Growing, grown, layer_of
from surfaces.odd_prompts import ODD_PROMPTS

from studio.core.controls import knobs
from studio.core.runs import last
from studio.desk.desk import Desk
from studio.desk.export_page import page_html
from studio.desk.export_script import script
from studio.desk.exports import FORMATS, export, file_name, formats
from studio.files.archive import parse_recipe, png_recipe
from studio.files.frames import snapshot_bytes
from studio.render.raster import still
from studio.scenes import Curves, Images, Matrix, Members, Series
from studio.studies.fusedream import FuseDream
from studio.studies.landscapes import Landscapes

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
STUDY = Landscapes(loss="curve", points=8, steps=40, seed=11)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk((Landscapes, Counting, Growing, Grading), tmp_path_factory.mktemp("désk"), workers=0)


@pytest.fixture(scope="module")
def row(desk):
    """A run slow enough for a film of many frames."""
    return ran(desk, STUDY, least=2.5)


@pytest.fixture(scope="module")
def counted(desk):
    return ran(desk, Counting(steps=6))


def ran(desk, study, **order):
    run_id = desk.submit(study, **order)
    list(desk.watch(run_id))
    return desk.store.row(run_id)


def test_the_formats_are_those_the_scenes_allow(desk, row, counted):
    assert formats(desk, row) == ("png", "gif", "mp4", "glb", "csv", "html", "py")
    assert formats(desk, counted) == ("html", "py")
    with pytest.raises(ValueError, match="landscapes draws no molecules: choose png, gif, mp4, glb, csv, html, py"):
        export(desk, row, "sdf")
    for kind in ("png", "gif", "mp4", "glb", "sdf", "csv"):
        with pytest.raises(ValueError, match=r"counting draws no \w+: choose html, py"):
            export(desk, counted, kind)
    for strange in ("exe", "", "../png", "PNG", "x" * 5000):
        for ask in (lambda kind: export(desk, row, kind), lambda kind: file_name(row, kind)):
            with pytest.raises(
                ValueError, match="choose png, gif, mp4, glb, sdf, xyz, csv, safetensors, html, py"
            ) as caught:
                ask(strange)
            assert len(str(caught.value)) < 200


def test_a_run_without_a_frame_is_refused_in_a_sentence(desk, counted):
    empty = replace(counted, frame=0)
    for kind in FORMATS:
        with pytest.raises(ValueError, match="nothing was kept of this run"):
            export(desk, empty, kind)
    lost = replace(counted, id="0" * 32, frame=1)
    with pytest.raises(ValueError, match="nothing was kept of this run"):
        export(desk, lost, "html")


def test_file_names_are_safe_everywhere(row):
    assert file_name(row, "mp4") == f"landscapes-11-{row.id[:8]}.mp4"
    for strange in ("../../etc", "a b", "-rf", "<x>", "ü" * 300, "CON\0"):
        name = file_name(replace(row, study=strange, knobs={"seed": strange}), "png")
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*\.png", name) and len(name) < 100


def test_a_png_is_the_exact_picture_with_its_recipe(desk, row):
    data = export(desk, row, "png")
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(np.asarray(picture), still(STUDY.view(last(STUDY.run()))))
    recipe = png_recipe(data)
    assert (recipe.study, recipe.version, recipe.knobs) == ("landscapes", row.version, knobs(STUDY))


def test_a_gif_and_an_mp4_show_the_film(desk, row):
    av = pytest.importorskip("av")
    seen = len(desk.film(row))
    with Image.open(io.BytesIO(export(desk, row, "gif"))) as film:
        frames = film.n_frames
        assert film.size == (480, 480) and 10 < frames <= min(seen, 48)
        first = np.asarray(film.convert("RGB"))
        film.seek(frames - 1)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - first).mean() > 0.1
        assert film.info["duration"] > 1000
    with av.open(io.BytesIO(export(desk, row, "mp4"))) as film:
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
    assert len(shown) >= frames and shown[0].shape == (480, 480, 3)
    assert np.abs(shown[0] - first).mean() < 6 and np.abs(shown[0] - shown[-1]).mean() > 0.1


def test_a_long_film_is_thinned_and_ends_with_the_newest(row):
    """200 snapshots, each of another picture, and a newest one that is not among them."""
    asked = []

    def view(snapshot):
        asked.append(snapshot.step)
        return (Images(np.full((1, 8, 8, 3), snapshot.step, np.uint8)),)

    study = SimpleNamespace(name="long", view=view, network_of=lambda _: None)
    newest = SimpleNamespace(step=200)
    long = SimpleNamespace(
        study=lambda _: study, snapshot=lambda _: newest, film=lambda _: [SimpleNamespace(step=n) for n in range(200)]
    )
    with Image.open(io.BytesIO(export(long, row, "gif"))) as film:
        assert film.n_frames == 48
        film.seek(47)
        assert np.asarray(film.convert("RGB"))[0, 0, 0] == 200
    assert len(asked) == 49, "only frames that are shown are paid for"


def test_a_glb_and_a_csv_hold_the_last_snapshot(desk, row):
    parts = trimesh.load(io.BytesIO(export(desk, row, "glb")), file_type="glb").geometry
    assert parts["points"].body_count == STUDY.points and "optimum" in parts
    lines = list(csv.reader(io.StringIO(export(desk, row, "csv").decode())))
    assert lines[0] == ["curve", "series", "x", "y"]
    assert sum(line[1] == "worst" for line in lines) == STUDY.steps + 1
    assert sum(line[1].startswith("member") for line in lines) == STUDY.points


def executed(text, folder, prefix=()):
    (folder / "again.py").write_bytes(text)
    paths = os.pathsep.join([str(ROOT), *map(str, prefix)])
    done = subprocess.run(
        [sys.executable, "again.py"], cwd=folder, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_script_repeats_the_run_to_the_byte(desk, row, tmp_path):
    text = export(desk, row, "py")
    assert b"    loss='curve',\n    points=8,\n    steps=40,\n    seed=11,\n)" in text, (
        "only what differs, and the seed"
    )
    code, said = executed(text, tmp_path)
    assert code == 0 and row.outcome in said and "The bytes agree" in said
    code, said = executed(text.replace(b"points=8", b"points=9"), tmp_path)
    assert code == 1 and "The bytes differ" in said and f"studio {row.version} on {row.device}" in said


def test_a_script_of_a_stopped_run_stops_there_too(desk, tmp_path):
    row = ran(desk, Counting(steps=5000, seed=3), until=18)
    assert row.state == "stopped" and row.step == 17
    code, said = executed(export(desk, row, "py"), tmp_path, prefix=[ROOT / "tests"])
    assert code == 0 and "step 17 of 5000" in said and "The bytes agree" in said
    # A worker that was killed writes no digest: the bytes it left are compared.
    left = replace(row, state="interrupted", digest="")
    assert export(desk, left, "py") == export(desk, row, "py")


def test_what_no_script_can_repeat_is_refused(desk, counted):
    on = ran(desk, Counting(steps=12), parent=counted.id)
    with pytest.raises(ValueError, match="this run went on from another one: export that one, or use studio replay"):
        export(desk, on, "py")
    assert formats(desk, on) == ("html",)
    for state in ("running", "held", "failed"):
        with pytest.raises(ValueError, match="ended well"):
            export(desk, replace(counted, state=state), "py")

    class Hidden(Counting):
        pass

    with pytest.raises(ValueError, match="a module of its own"):
        script(Hidden(), counted, b"", 6)


def test_no_prompt_gets_out_of_its_literal(counted):
    bare = replace(counted, study="fusedream")
    extra = ('"); import os; os.system("x")#', "'''\"\"\"\\", "{study}{kept!r}", "\N{LINE SEPARATOR}x", "# coding: x")
    tried = 0
    for prompt in (*ODD_PROMPTS, *extra):
        try:
            study = FuseDream(prompt=prompt)
        except ValueError:
            continue
        tried += 1
        tree = ast.parse(script(study, bare, b"x", 6).encode("utf-8", "replace"))
        (made,) = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "study"]
        values = {word.arg: ast.literal_eval(word.value) for word in made.value.keywords}
        assert values.pop("prompt", FuseDream.prompt) == prompt and values == {"seed": 7}
        assert len(tree.body) == 14 and not made.value.args
    assert tried > 100


class Marks(HTMLParser):
    """Collects the tags, the attributes and the addresses that a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.names, self.addresses = [], set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.addresses |= {(tag, name, value) for name, value in attrs if name in ("src", "href", "srcset", "data")}


def block(text, name):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)[1])


def test_a_page_needs_nothing_else(desk, row):
    text = export(desk, row, "html").decode()
    marks = Marks(text)
    assert not {"link", "iframe", "object", "base", "form"} & set(marks.tags)
    outside = {(tag, value) for tag, _, value in marks.addresses if not value.startswith("data:image/png;base64,")}
    assert outside == {("a", paper.link) for paper in STUDY.papers}
    own = re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "", text, flags=re.S)
    assert len(text) - len(own) > 1e6, "the library was taken out, nothing else"
    assert set(re.findall(r"https?:[^\s\"'<]*", own)) == {paper.link for paper in STUDY.papers}
    recipe = parse_recipe(json.dumps(block(text, "recipe")))
    assert (recipe.study, recipe.knobs) == ("landscapes", knobs(STUDY))
    frames = block(text, "frames")
    assert 10 < len(frames) <= 48 and frames[-1]["step"] == "step 40 of 40"
    assert len(block(text, "charts")) == 3 and row.outcome in text and row.digest[:16] in text


def hostile(prompt):
    """Return the page of a run whose every word came from somebody hostile."""
    line = Series(prompt, np.arange(2.0), np.arange(2.0))
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    scenes = (
        Images(pixels, (prompt,)),
        Curves(prompt, prompt, prompt, (line,)),
        Members(prompt, prompt, prompt, np.ones(1), np.ones(1), (prompt,)),
        grown(layer_of(prompt, 3, 1), layer_of(prompt, 2), round=1, title=prompt),
        Matrix(prompt, prompt, prompt, (prompt,), (prompt, prompt), np.array([[1.0, np.nan]])),
    )
    study = FuseDream()
    object.__setattr__(study, "prompt", prompt)
    row = SimpleNamespace(
        state="done", study="fusedream", version=prompt, knobs={"prompt": prompt}, total=1, submitted=0.0, id=prompt,
        seconds=1.0, device=prompt, digest=prompt,
    )  # fmt: skip
    return page_html(study, row, SimpleNamespace(outcome=prompt, step=1, total=1), scenes, [(1, pixels[0])])


def test_words_of_a_person_stay_words_on_a_page(monkeypatch):
    monkeypatch.setattr("studio.desk.export_page.get_plotlyjs", lambda: "")
    plain = Marks(hostile("a fox"))
    for prompt in [text for text in ODD_PROMPTS if 0 < len(text) < 400]:
        marks = Marks(hostile(prompt).encode("utf-8", "replace").decode())
        assert marks.tags == plain.tags and marks.names == plain.names, prompt
        assert {place[:2] for place in marks.addresses} == {place[:2] for place in plain.addresses}


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    tabs = []

    def visit(text, width=1280, **wishes):
        (tmp_path / "page.html").write_bytes(text)
        context = chromium.new_context(viewport={"width": width, "height": 860}, **wishes)
        tabs.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.faults = []
        page.on("dialog", lambda dialog: (page.faults.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda note: page.faults.append(note.text) if note.type in ("error", "warning") else None)
        page.on("request", lambda ask: None if ask.url.startswith(("data:", "file:")) else page.faults.append(ask.url))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('[data-chart]')].every(e => e.querySelector('.main-svg'))"
        )
        return page

    yield visit
    for context in tabs:
        context.close()


def test_a_page_opens_slides_and_plays_in_a_browser(desk, row, opened):
    page = opened(export(desk, row, "html"))
    picture, slider, play = page.locator("#picture"), page.locator("#slider"), page.locator("#play")
    end = picture.get_attribute("src")
    slider.focus()
    page.keyboard.press("Home")
    start = picture.get_attribute("src")
    assert start != end and page.locator("#step").inner_text() == "step 0 of 40"
    page.keyboard.press("ArrowRight")
    assert picture.get_attribute("src") not in (start, end)
    assert slider.get_attribute("aria-valuetext") == page.locator("#step").inner_text()
    page.keyboard.press("End")
    assert picture.get_attribute("src") == end
    play.focus()
    page.keyboard.press("Enter")
    assert play.inner_text() == "Pause"
    page.locator("#play", has_text="Play").wait_for()
    assert picture.get_attribute("src") == end and page.locator("#step").inner_text() == "step 40 of 40"
    page.locator(".st-field input").first.check()
    assert page.locator(".st-card").locator("visible=true").count() == 1
    assert page.locator(".main-svg").count() >= 3 and page.faults == []


def test_a_network_that_grew_comes_along_with_its_sliders(desk, opened):
    row = ran(desk, Growing(steps=3))
    assert formats(desk, row) == ("png", "gif", "mp4", "csv", "html", "py")
    page = opened(export(desk, row, "html"), width=390)
    page.locator(".st-net-field > input").first.check()
    page.locator(".st-net-budget").press("Home")
    assert "pays 0 splits" in page.locator(".st-net-budget-words").inner_text() and page.faults == []
    assert page.locator(".st-net-card").locator("visible=true").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and page.locator("#play").is_visible()


@pytest.mark.parametrize("networks", [1, 0])
def test_a_table_comes_along_and_scrolls_by_itself_on_a_phone(desk, opened, networks):
    row = ran(desk, Grading(steps=9, copies=networks))
    assert ("png" in formats(desk, row)) == bool(networks)
    assert b"\nMarks,<task> 9,<task> 9,81\n" in export(desk, row, "csv")
    page = opened(export(desk, row, "html"), width=390)
    assert page.locator("td.st-matrix-full").count() == 55 and page.locator(".st-net").count() == networks
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and page.faults == []
    assert page.evaluate("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.st-matrix-scroll'))")


def test_a_page_fits_a_phone_and_is_calm_where_that_is_wished(desk, row, opened):
    page = opened(export(desk, row, "html"), width=390, reduced_motion="reduce")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#play").click()
    began = page.locator("#step").inner_text()
    time.sleep(0.6)
    assert page.locator("#step").inner_text() == began, "no more than a picture a second"
    page.locator("#play").click()
    assert page.locator("#play").inner_text() == "Play" and page.faults == []


def test_a_page_without_a_picture_has_no_player(desk, counted, opened):
    page = opened(export(desk, counted, "html"))
    assert page.locator("#picture").count() == 0 and page.locator("table").count() == 1 and page.faults == []
    assert (
        hashlib.sha256(snapshot_bytes(desk.snapshot(counted))).hexdigest()[:16] in page.locator("footer").inner_text()
    )


@pytest.mark.parametrize("prompt", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><!--"])
def test_nothing_hostile_acts_in_a_browser(prompt, opened):
    page = opened(hostile(prompt).encode())
    assert prompt in page.locator("td").all_inner_texts() and page.faults == []
    assert page.locator("#recipe").evaluate("e => JSON.parse(e.textContent).knobs.prompt") == prompt


def test_the_policy_of_a_page_forbids_requests_and_foreign_scripts(desk, counted, opened):
    page = opened(export(desk, counted, "html"))
    page.evaluate("""() => { const img = new Image(); img.src = 'https://example.org/x.png'; document.body.append(img);
        const code = document.createElement('script'); code.textContent = 'window.foreign = 1';
        document.body.append(code); }""")
    page.wait_for_timeout(300)
    assert page.evaluate("window.foreign === undefined")
    refused = [fault for fault in page.faults if "Content Security Policy" in fault]
    assert len(refused) == 2, page.faults
