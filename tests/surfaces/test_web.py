"""The page without a browser: it builds, is restored by links and pictures, streams, frees its runs, escapes."""

import asyncio
import gc
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest
from desk.counting import Counting
from surfaces.growing import Grading, Growing
from surfaces.odd_prompts import ODD_PROMPTS
from surfaces.painting import Painting, Sketching

from studio import __version__
from studio.catalog import CATALOG
from studio.core.controls import clamp, controls, knobs
from studio.core.runs import record
from studio.desk.desk import Desk
from studio.desk.policy import Policy
from studio.files.archive import Recipe, png_bytes, png_recipe
from studio.render.raster import still
from studio.studies.landscapes import Landscapes
from studio.surfaces import web
from studio.surfaces.web_gradio import gr
from studio.surfaces.web_page import study_page
from studio.surfaces.web_run import drawn, file_of, overlaid
from studio.surfaces.web_visitor import Visitors

# Gradio leaves event loops to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
REQUEST = SimpleNamespace(session_hash="tab", headers={"host": "127.0.0.1:7860"})
STUDIES = (*CATALOG, Painting, Sketching, Counting, Growing, Grading)
HARMLESS = {"div", "figure", "img", "figcaption", "span", "strong", "p", "i", "h4"}


def page_of(study, **settings):
    with gr.Blocks():
        return study_page(study, Desk(STUDIES, **settings), Visitors())


@pytest.fixture(scope="module", autouse=True)
def collected():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def painting():
    return page_of(Painting)


@pytest.fixture
def waiting(tmp_path):
    """Return a page whose runs wait for ever, as nobody works on them."""
    return page_of(Painting, folder=tmp_path, workers=1, policy=Policy(waiting=3))


class Marks(HTMLParser):
    """Collects every tag and attribute that a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def html_in(page, updates):
    for part in (page.stage, page.status, page.forecast):
        value = updates.get(part)
        value = value.get("value") if isinstance(value, dict) else value
        if isinstance(value, str):
            yield value


def begun(page, study, compare=False, request=REQUEST):
    return page.begin(request, "", compare, False, *knobs(study).values())


def watched(page, ticket):
    async def all_of_it():
        return [updates async for updates in page.watch(ticket)]

    return asyncio.run(all_of_it())


def ran(page, study, compare=False):
    first = begun(page, study, compare)
    return [first, *watched(page, first[page.ticket])]


def shown(page, part, updates):
    found = [u[part].get("value") if isinstance(u[part], dict) else u[part] for u in updates if part in u]
    return [value for value in found if value]


def test_every_study_gets_a_page_and_a_named_endpoint():
    config = web.gallery((*CATALOG, Painting)).get_config_file()
    public = {d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"}
    assert public == {study.name for study in (*CATALOG, Painting)} | {"submit", "status", "stop"}


def test_knobs_follow_the_controls(painting):
    kinds = dict(zip([c.name for c in controls(Painting)], painting.knobs, strict=True))
    assert isinstance(kinds["prompt"], gr.Textbox) and kinds["prompt"].max_length == 200
    assert isinstance(kinds["steps"], gr.Slider) and isinstance(kinds["rate"], gr.Number)
    assert isinstance(kinds["style"], gr.Radio) and isinstance(kinds["bright"], gr.Checkbox)
    assert all(knob.value == default for knob, default in zip(painting.knobs, knobs(Painting()).values(), strict=True))
    assert painting.compare.visible and not page_of(Counting).compare.visible


def test_a_run_ends_with_picture_chart_and_file(painting, tmp_path, monkeypatch):
    study = Painting(steps=4, seed=11)
    kept = {}

    def keep(row, study, scenes, real=file_of):
        path = real(row, study, scenes)
        kept["bytes"] = path.read_bytes()
        return path

    monkeypatch.setattr("studio.surfaces.web_page.file_of", keep)
    updates = ran(painting, study)
    assert "painted a red fox" in shown(painting, painting.status, updates)[-1]
    assert shown(painting, painting.stage, updates) and shown(painting, painting.charts[0], updates)
    last = record(study.run())[-1]
    expected = png_bytes(still(study.view(last)), Recipe("painting", __version__, knobs(study)))
    assert kept["bytes"] == expected


def test_the_plain_baseline_is_drawn_dashed_beside(painting):
    updates = ran(painting, Painting(steps=3), compare=True)
    figure = shown(painting, painting.charts[0], updates)[-1]
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash"]
    assert "Plain baseline" in shown(painting, painting.stage, updates)[-1]
    assert "painted" in shown(painting, painting.status, updates)[-1]


def test_a_growing_network_takes_the_place_of_the_picture_and_its_baseline_follows():
    page = page_of(Growing)
    updates = ran(page, Growing(steps=3), compare=True)
    drawn = shown(page, page.network, updates)
    assert "Round 3" in drawn[-1] and drawn[-1].count('<section class="st-net"') == 2
    assert (
        "Plain baseline: A network that grows" in drawn[-1]
        and len(set(re.findall(r'data-group="(\w+)"', drawn[-1]))) == 2
    )
    assert {"visible": False, "__type__": "update"} in [
        update[page.stage] for update in updates if page.stage in update
    ]


def test_a_table_is_shown_below_its_network_and_alone():
    page = page_of(Grading)
    updates = ran(page, Grading(steps=3), compare=True)
    html = shown(page, page.network, updates)[-1]
    order = [html.index(part) for part in ('<section class="st-net"', "What competed", "<caption>Marks<")]
    assert order == sorted(order) and html.index("<caption>Plain baseline: Marks<") > order[-1]
    assert html.count("<table>") == 2 and html.count('<section class="st-net"') == 1
    assert "<task>" not in html and "&lt;task&gt; 3</th>" in html
    assert {"visible": False, "__type__": "update"} in [
        update[page.stage] for update in updates if page.stage in update
    ]


def test_runs_with_a_table_stand_side_by_side():
    page, looks = page_of(Grading), []
    for study in (Grading(steps=2), Grading(steps=2, copies=0)):
        ticket = begun(page, study)[page.ticket]
        watched(page, ticket)
        looks.append(drawn(study, page.desk.row(ticket), page.desk.snapshot(page.desk.row(ticket)), place="kept-"))
    assert [look.network.count("<table>") for look in looks] == [1, 1]
    assert ["st-net-field" in look.network.split("</style>")[1] for look in looks] == [True, False]
    assert overlaid(looks[0].scenes, looks[1].scenes, "right") == ()


def test_stop_keeps_the_best_so_far_and_it_can_go_on(painting):
    ticket = begun(painting, Painting(steps=1000))[painting.ticket]
    until(lambda: painting.desk.store.row(ticket).step > 5)
    painting.stop(REQUEST, ticket)
    updates = watched(painting, ticket)
    assert "Stopped" in shown(painting, painting.status, updates)[-1]
    assert updates[-1][painting.download]["interactive"] and updates[-1][painting.buttons["run"]]["interactive"]
    assert updates[-1][painting.buttons["pause"]] == {"value": "Go on", "interactive": True, "__type__": "update"}
    again = painting.pause(REQUEST, ticket)[painting.ticket]
    until(lambda: painting.desk.store.row(again).step > painting.desk.store.row(ticket).step)
    painting.stop(REQUEST, again)


def until(ready, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_closing_the_stream_leaves_the_run_and_others_join(painting):
    ticket = begun(painting, Painting(steps=300, seed=99))[painting.ticket]

    async def left():
        stream = painting.watch(ticket)
        await anext(stream), await anext(stream)
        await stream.aclose()

    asyncio.run(left())
    updates = watched(painting, ticket)
    assert "painted" in shown(painting, painting.status, updates)[-1]
    assert painting.desk.store.row(ticket).state == "done"


def test_a_link_to_a_run_brings_its_knobs_and_watches_it(painting):
    study = Painting(steps=6, prompt="a blue cup")
    ticket = begun(painting, study)[painting.ticket]
    updates = web.link_updates([painting], None, {"run": ticket, "steps": "9"})
    assert updates[painting.ticket] == ticket
    assert [updates[knob] for knob in painting.knobs] == list(knobs(study).values())
    watched(painting, ticket)


@pytest.mark.parametrize("run", ["", "x", "../../etc/passwd", "a" * 32, "<script>"])
def test_a_link_to_no_run_says_so(painting, monkeypatch, run):
    said = []
    monkeypatch.setattr(gr, "Warning", lambda *_, title: said.append(title))
    updates = web.link_updates([painting], None, {"run": run})
    assert said == ["This run is not here"] and painting.ticket not in updates


def test_a_full_queue_gets_a_sentence(waiting, monkeypatch):
    monkeypatch.setattr("studio.desk.desk.tend", lambda *_, **__: None)
    replies = [begun(waiting, Painting()) for _ in range(5)]
    assert "waiting already" in replies[-1][waiting.status] and not replies[-1][waiting.ticket]
    waiting.stop(REQUEST, replies[0][waiting.ticket])
    assert begun(waiting, Painting())[waiting.ticket]


def test_where_others_come_each_rules_over_own_runs_only(waiting, monkeypatch):
    monkeypatch.setattr("studio.desk.desk.tend", lambda *_, **__: None)
    apart = Visitors(apart=True)
    mine, theirs = (
        SimpleNamespace(session_hash="s", headers={"cookie": f"a=b; studio-visitor={name}"}) for name in ("me", "you")
    )
    row = waiting.desk.store.row(begun(waiting, Painting(), request=mine)[waiting.ticket])
    assert row.owner == "page me" and apart.may(mine, row) and not apart.may(theirs, row)
    assert Visitors().may(theirs, row)
    named = SimpleNamespace(session_hash="s", headers={}, username="ada")
    assert apart.owner(named) == "user ada" and apart.seen(named) == "user ada" and Visitors().seen(named) is None
    strange = SimpleNamespace(session_hash="s", headers={"cookie": "studio-visitor=" + "x" * 5000 + "; =;;\x00"})
    assert len(apart.owner(strange)) < 100


def test_errors_are_sentences_without_inner_detail(painting):
    refused = painting.begin(REQUEST, "", False, False, *{**knobs(Painting()), "steps": 5000}.values())
    assert "steps must be between 1 and 1000" in refused[painting.status]
    empty = painting.begin(REQUEST, "", False, False, *{**knobs(Painting()), "seed": None}.values())
    assert "Seed is empty" in empty[painting.status]
    status = shown(painting, painting.status, ran(painting, Painting(prompt="weights")))[-1]
    assert "no weights here: &lt;put&gt;" in status
    status = shown(painting, painting.status, ran(painting, Painting(prompt="break")))[-1]
    assert "RuntimeError" in status and "secret" not in status


def test_two_hundred_odd_prompts_stay_text():
    sketching = page_of(Sketching)
    assert len(ODD_PROMPTS) >= 200
    for prompt in ODD_PROMPTS:
        values = {**knobs(Sketching(steps=1)), "prompt": prompt}.values()
        updates = [sketching.refresh(REQUEST, *values), sketching.begin(REQUEST, "", False, False, *values)]
        updates += watched(sketching, updates[1][sketching.ticket])
        texts = [text for update in updates for text in html_in(sketching, update)]
        assert texts
        for text in texts:
            marks = Marks(text)
            assert marks.tags <= HARMLESS, prompt
            assert not any(name.startswith("on") or name == "href" for name in marks.attributes), prompt
            text.encode("utf-8")


@pytest.mark.parametrize("study", [*CATALOG, Painting])
def test_a_link_brings_every_knob_back(study):
    page = page_of(study)
    other = clamp(study, {c.name: other_value(c) for c in controls(study)})
    assert other != study()
    link = page.refresh(REQUEST, *knobs(other).values())[page.link]
    query = dict(parse_qsl(urlsplit(link).query))
    restored = web.link_updates([page], None, query)
    assert [restored[knob] for knob in page.knobs] == list(knobs(other).values())


def other_value(control):
    if control.kind is bool:
        return not control.default
    if control.kind is str:
        options = getattr(control.bound, "options", ("a <b>fox</b> & 100% #1?",))
        return options[-1]
    return control.bound.low if control.default != control.bound.low else control.bound.high


def test_a_hostile_link_is_tamed(painting):
    query = {
        "study": "painting",
        "steps": "9e99",
        "rate": "nan",
        "style": "<script>",
        "prompt": "x" * 9999,
        "evil": "1",
    }
    restored = web.link_updates([painting], None, query)
    values = dict(zip([c.name for c in controls(Painting)], [restored[k] for k in painting.knobs], strict=True))
    assert values["steps"] == 1000 and values["rate"] == 0.1 and values["style"] == "noise"
    assert len(values["prompt"]) == 200
    strange = web.link_updates([painting, page_of(Landscapes)], None, {"study": "<b>"})
    assert not set(strange) & set(painting.knobs)


def test_a_dropped_picture_brings_every_knob_back(painting, tmp_path, monkeypatch):
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    study = Painting(prompt="<i>a fox</i>", steps=33, seed=5, rate=0.5, bright=True)
    pixels = next(study.run()).pixels.numpy()
    path = tmp_path / "fox.png"
    path.write_bytes(png_bytes(pixels, Recipe("painting", "0", knobs(study))))
    restored = web.drop_updates([painting], None, painting, str(path))
    assert [restored[knob] for knob in painting.knobs] == list(knobs(study).values())


@pytest.mark.parametrize("case", ["no recipe", "not a png", "another study", "gone"])
def test_a_picture_without_a_recipe_warns_and_changes_nothing(painting, tmp_path, monkeypatch, case):
    said = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: said.append(text))
    pixels, path = next(Painting().run()).pixels.numpy(), tmp_path / "x.png"
    recipe = Recipe("<img src=x onerror=alert(1)>", "0", {})
    if case != "gone":
        path.write_bytes({"no recipe": png_bytes(pixels), "not a png": b"GIF89a"}.get(case, png_bytes(pixels, recipe)))
    updates = web.drop_updates([painting], None, painting, str(path))
    assert updates == {painting.upload: None}
    assert len(said) == 1 and "<" not in said[0]


def test_programs_get_the_same_picture(painting):
    study = Painting(steps=2, seed=3)
    path, outcome = asyncio.run(painting.answer(REQUEST, *knobs(study).values()))
    assert png_recipe(Path(path).read_bytes()).knobs == knobs(study) and outcome == "painted a red fox"
    with pytest.raises(gr.Error, match="steps must be"):
        asyncio.run(painting.answer(REQUEST, *{**knobs(study), "steps": 0}.values()))


def test_another_address_needs_a_password_or_a_word():
    with pytest.raises(ValueError, match="SSH tunnel"):
        web.open_server(gr.Blocks(), web.Launch(host="0.0.0.0"))
    open_to_all = web.Launch(host="0.0.0.0", exposed=True)
    open_to_all.check()
    assert "EVERYBODY" in open_to_all.warning("http://localhost:7861/") and "password" in web.Launch(
        host="h", auth=(("a", "b"),)
    ).warning("")
    assert web.Launch().warning("") == ""


def test_the_style_sheet_names_no_other_host():
    assert not re.search(
        r"https?:|@import|//", web.STYLE.read_text(encoding="utf-8").replace("/*", "").replace("*/", "")
    )
