"""A kept run with molecules as files: SDF, XYZ, a table, a film, and a page that turns them offline."""

import gc
import io
import os
import shutil

import pytest
from PIL import Image
from surfaces.painting import Painting
from surfaces.turning import Turning

from studio.desk.desk import Desk
from studio.desk.exports import export, file_name, formats

CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
HOSTILE = "</script><img src=x onerror=alert(1)>"
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    yield Desk((Turning, Painting), folder=tmp_path_factory.mktemp("runs"), workers=0)
    gc.collect()


def ran(desk, study, **order):
    run_id = desk.submit(study, **order)
    list(desk.watch(run_id))
    return desk.row(run_id)


@pytest.fixture(scope="module")
def row(desk):
    return ran(desk, Turning(steps=5, words=HOSTILE), least=1.5)


def test_the_formats_are_those_of_molecules(desk, row):
    assert formats(desk, row)[:6] == ("png", "gif", "mp4", "sdf", "xyz", "csv") and "html" in formats(desk, row)
    assert formats(desk, ran(desk, Turning(steps=2, members=0)))[:4] == ("png", "gif", "mp4", "html")
    painted = ran(desk, Painting.tiny())
    assert not {"sdf", "xyz"} & set(formats(desk, painted))
    with pytest.raises(ValueError, match="draws no molecules: choose"):
        export(desk, painted, "xyz")
    assert file_name(row, "xyz").endswith(".xyz")


def test_conformers_are_written_as_text(desk, row):
    sdf = export(desk, row, "sdf").decode()
    assert sdf.count("$$$$\n") == 5 and sdf.count("> <ENERGY_KCAL_PER_MOL>\n") == 5
    assert export(desk, row, "xyz").decode().count("\n16\n") == 4
    lines = [line for line in export(desk, row, "csv").decode().splitlines() if ",rank " in line]
    assert [line.rsplit(",", 3)[1] for line in lines] == [f"rank {place}" for place in range(1, 6)]
    assert lines[0].rsplit(",", 2)[1] == "0"


def test_a_film_shows_them_coming_to_rest(desk, row):
    with Image.open(io.BytesIO(export(desk, row, "gif"))) as film:
        assert film.size == (480, 480) and film.n_frames >= 4


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it, or name it in STUDIO_CHROMIUM")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_turns_them_offline_and_shows_no_markup(desk, row, tmp_path, width):
    from playwright.sync_api import sync_playwright

    text = export(desk, row, "html")
    assert len(text) < 3_000_000 and b"unsafe-eval" not in text and b"http://cdn" not in text
    (tmp_path / "page.html").write_bytes(text)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": width, "height": 860}, offline=True)
        page, faults = context.new_page(), []
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda note: faults.append(note.text) if note.type == "error" else None)
        page.on("request", lambda ask: None if ask.url.startswith(("data:", "file:")) else faults.append(ask.url))
        page.goto((tmp_path / "page.html").as_uri())
        page.locator(".st-mol-host canvas").wait_for()
        assert page.locator(".st-mol h4").inner_text() == HOSTILE
        page.locator(".st-field input").nth(2).check()
        assert page.locator(".st-mol-side input:checked").get_attribute("value") == "2"
        page.locator('tr[data-conformer="4"]').click()
        assert page.locator(".st-field input:checked").get_attribute("value") == "4"
        page.get_by_role("button", name="All", exact=True).click()
        assert page.locator(".st-mol-legend").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width and faults == []
        browser.close()
