"""How long a visitor waits: from the command to the page, from the button to the first picture, and to the last step.

The page is opened by the README's command and driven in a headless Chromium, as a visitor would; each figure is the
median of three visits.
"""

__all__ = ["waits"]

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.desk_place import place

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE = 600.0


def waits(visits: int = 3, steps: int = 200) -> dict[str, object]:
    """Return the waits in seconds and the megabytes of what ships."""
    found: list[tuple[float, float, float]] = []
    for _ in range(visits):
        with place("studio wait"):
            # A visitor's run has all cores.
            os.environ.pop("OMP_NUM_THREADS", None)
            found.append(_visit(steps))
    names = ("command_to_page_seconds", "first_image_seconds", f"blend_{steps}_steps_seconds")
    columns = zip(*found, strict=True)
    figures: dict[str, object] = {name: round(statistics.median(c), 2) for name, c in zip(names, columns, strict=True)}
    figures |= {f"{name}_all": [round(v[i], 2) for v in found] for i, name in enumerate(names)}
    size = sum(path.stat().st_size for path in (ROOT / "assets").rglob("*") if path.is_file())
    return figures | {"assets_megabytes": round(size / 2**20, 2)}


def _visit(steps: int) -> tuple[float, float, float]:
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    port = _free_port()
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "run.py"), "app", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        _until_served(address, server)
        page_ready = time.monotonic() - began
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(PATIENCE * 1000)
            page.goto(f"{address}?study=fusedream&steps={steps}")
            page.wait_for_function("document.querySelector('.st-needs') !== null")
            page.wait_for_timeout(1000)
            button = page.get_by_role("button", name="Run", exact=True).locator("visible=true").first
            clicked = time.monotonic()
            button.click()
            page.locator(".st-pictures img").locator("visible=true").first.wait_for()
            first = time.monotonic() - clicked
            page.locator(".st-done").locator("visible=true").first.wait_for()
            last = time.monotonic() - clicked
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    return page_ready, first, last


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _until_served(address: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"the studio ended with status {server.returncode} before it served a page")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise SystemExit(f"no page within {PATIENCE:.0f} s")
