"""What a visitor meets in a browser: a reload in mid-run, and a run that was started in a terminal."""

__all__ = ["reload", "surfaces"]

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

from benchmarks.desk_place import ROOT, place, server, until
from benchmarks.desk_study import Walk, ending
from studio.desk.store import Store

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
WAIT = 30_000
STEP = re.compile(r"step ([\d,]+) of")
ASK = """
import sys
from studio.surfaces.panel import Panel
from studio.surfaces.panel_runs import runs
listed = [row.id for row in runs().rows]
panel = Panel.of(sys.argv[1])
print(int(sys.argv[1] in listed and panel.result is not None and panel.result.step == int(sys.argv[2])))
"""


def reload(runs: int = 5, each: int = 4, steps: int = 700, seed: int = 0) -> dict[str, object]:
    """Reload the page `each` times in the middle of `runs` runs, and compare what they end with."""
    dice, attached, equal, notes = random.Random(seed), 0, 0, []
    with place() as folder, server() as page, _chromium() as browser:
        store = Store(folder)
        for number in range(runs):
            study = Walk(steps=steps, nap=0.02, seed=number)
            tab = browser.new_page(viewport={"width": 1280, "height": 860})
            tab.set_default_timeout(WAIT)
            tab.goto(f"{page.address}?study=walk&steps={study.steps}&nap={study.nap}&seed={study.seed}")
            tab.wait_for_function("document.querySelector('.st-needs') !== null")
            tab.get_by_role("button", name="Run", exact=True).locator("visible=true").first.click()
            _live(tab)
            for trial in range(each):
                tab.wait_for_timeout(dice.uniform(200, 1200))
                before, address = _live(tab), tab.url
                tab.reload()
                after = _live(tab)
                row = store.rows(most=1)[0]
                good = after >= before and row.open and address.endswith(f"?run={row.id}") and tab.url == address
                attached += good
                if not good:
                    notes.append(f"run {number} reload {trial}: step {before} before, {after} after, {tab.url}")
            tab.locator(".st-done").locator("visible=true").first.wait_for()
            row = store.rows(most=1)[0]
            equal += row.digest == hashlib.sha256(ending(study)).hexdigest()
            tab.close()
        known = len(store.rows())
    return {
        "reload_trials": runs * each,
        "reload_seed": seed,
        "reattached": attached,
        "reload_runs": runs,
        "reload_bytes_equal": equal,
        "reload_extra_runs": known - runs,
        "reload_notes": notes[:10],
    }


def surfaces(steps: int = 20) -> dict[str, object]:
    """Start a run in a terminal and look for it in the browser's gallery and in a notebook."""
    with place() as folder:
        command = [sys.executable, "-m", "studio", "run", "landscapes", "--steps", str(steps)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
        row = Store(folder).rows()[0]
        with server("--shipped") as page, _chromium() as browser:
            tab = browser.new_page(viewport={"width": 1280, "height": 860})
            tab.set_default_timeout(WAIT)
            tab.goto(page.address)
            tab.get_by_role("tab", name="Runs").click()
            card = tab.locator(f'[data-run="{row.id}"]')
            card.wait_for()
            shown = "done" in card.inner_text() and card.locator("img").count() == 1
        ask = [sys.executable, "-c", ASK, row.id, str(steps)]
        told = subprocess.run(ask, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300).stdout
    return {"terminal_run_in_browser": int(shown), "terminal_run_in_notebook": int(told.split()[-1])}


def _live(tab: Any) -> int:
    """Return the step that the page shows of a run going on."""
    line = tab.locator(".st-live").locator("visible=true").first
    return int(until(lambda: STEP.search(line.inner_text()), 30)[1].replace(",", ""))


@contextmanager
def _chromium() -> Generator[Any, None, None]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=path, args=FLAGS)) as browser,
    ):
        yield browser
