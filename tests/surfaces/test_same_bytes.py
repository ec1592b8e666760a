"""One seed gives one picture, byte for byte, in the page, the panel and the terminal."""

import asyncio
import dataclasses
import gc
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio.catalog import CATALOG
from studio.core.controls import knobs
from studio.desk.desk import Desk
from studio.surfaces.cli import main
from studio.surfaces.panel import Panel
from studio.surfaces.web_gradio import gr
from studio.surfaces.web_page import study_page
from studio.surfaces.web_visitor import Visitors

REQUEST = SimpleNamespace(session_hash="tab", headers={"host": "127.0.0.1:7860"})
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Let go of gradio's event loops here, where the warnings about them are expected."""
    yield
    gc.collect()


def flag(name, value):
    return [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]


@pytest.mark.parametrize("study", CATALOG, ids=lambda study: study.name)
def test_every_surface_gives_the_same_bytes(study, tmp_path):
    chosen = dataclasses.replace(study.tiny(), seed=11)
    out = tmp_path / "terminal.png"
    flags = [text for name, value in knobs(chosen).items() for text in flag(name.replace("_", "-"), value)]
    assert main(["run", study.name, *flags, "--out", str(out)]) == 0
    panel = Panel(chosen)
    panel.run()
    with gr.Blocks():
        page = study_page(study, Desk(CATALOG), Visitors())
    path, _ = asyncio.run(page.answer(REQUEST, *knobs(chosen).values()))
    assert out.read_bytes() == panel.save() == Path(path).read_bytes()
