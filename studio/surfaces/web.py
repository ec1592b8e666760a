"""The studio in a browser: every study in a tab, served to this machine only, with no request to any other."""

__all__ = ["LOOPBACK", "Launch", "drop_updates", "gallery", "launch", "link_updates", "open_server"]

import logging
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from studio.catalog import CATALOG
from studio.core.controls import clamp
from studio.desk.desk import Desk
from studio.desk.policy import Policy
from studio.files.archive import MAX_PNG_BYTES, png_recipe
from studio.render.molecules import VIEWER, viewer_script
from studio.studies.study import Study
from studio.surfaces import web_gallery
from studio.surfaces.web_gallery import ARROWS, Rows, rows_of
from studio.surfaces.web_gradio import Base, Soft, gr
from studio.surfaces.web_guard import LOOPBACK, Guard, trusted_hosts
from studio.surfaces.web_html import say
from studio.surfaces.web_page import QUIET, SAYING, Page, study_page
from studio.surfaces.web_programs import programs
from studio.surfaces.web_runs import runs_page
from studio.surfaces.web_visitor import Visitors

STYLE = Path(__file__).with_name("web.css")
HEARTBEAT = 20.0


@dataclass(frozen=True)
class Launch:
    """How a studio is opened: where, for whom, with how many workers and within which limits.

    Port 0 takes a free one from 7860 on; a host other than this machine needs `auth`, pairs of a name and a password,
    or `exposed`, which says that everybody may come.
    """

    host: str = "127.0.0.1"
    port: int = 0
    open_browser: bool = True
    auth: tuple[tuple[str, str], ...] = ()
    exposed: bool = False
    trusted: tuple[str, ...] = ()
    workers: int = 1
    policy: Policy = field(default_factory=Policy)

    @property
    def local(self) -> bool:
        """Return whether only this machine can reach the page."""
        return self.host in LOOPBACK

    def check(self) -> None:
        """Raise a `ValueError` where a page would be open to other machines and nobody said that it may."""
        if not self.local and not (self.auth or self.exposed):
            raise ValueError(
                f"{self.host} can be reached from other machines: add --auth NAME:PASSWORD, or --exposed to let "
                "everybody in; or stay on 127.0.0.1 and use an SSH tunnel"
            )

    def warning(self, address: str) -> str:
        """Return what is exposed, in a few sentences; nothing for a page of this machine alone."""
        if self.local:
            return ""
        names = [name for name in trusted_hosts(self.host, self.trusted) if name not in LOOPBACK]
        places = ", ".join(f"http://{name}:{urlsplit(address).port}" for name in names)
        who = "Whoever has a name and password" if self.auth else "EVERYBODY who can reach this machine"
        caps = ", ".join(f"{name} at most {most:g}" for name, most in self.policy.caps.items()) or "no caps on knobs"
        return (
            f"{who} can start runs here, at {places}, unencrypted: {self.policy.each} open runs a visitor, "
            f"{self.policy.waiting} waiting in all, {self.policy.minutes:g} minutes each, {caps}. Visitors see their "
            "own runs in the list, and any run whose link they have."
        )


def gallery(catalog: tuple[type[Study], ...], desk: Desk | None = None, visitors: Visitors | None = None) -> gr.Blocks:
    """Return the page of every study, in tabs by their groups, with a tab for the runs that were kept."""
    desk, visitors = desk or Desk(_whole(catalog)), visitors or Visitors()
    first, *others = catalog
    title = "Optimisation studio" if others else first.title
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as demo:
        programs(desk, visitors)
        pages, rows = rows_of(
            catalog,
            lambda study: study_page(study, desk, visitors),
            lambda tab: runs_page(desk, visitors, catalog, tab),
        )
        _join(demo, pages, rows)
    demo.queue(max_size=512)
    return demo


def launch(catalog: tuple[type[Study], ...], options: Launch | None = None) -> None:
    """Open the studies in the browser and stay until Ctrl-C, which interrupts the runs handed in here."""
    options = options or Launch()
    options.check()
    desk, over = Desk(_whole(catalog), workers=options.workers, policy=options.policy), threading.Event()
    keeping = threading.Thread(target=_keep_warm, args=(desk, over), daemon=True)
    keeping.start()
    warming = threading.Thread(target=_warm, args=(catalog[0],), daemon=True)
    warming.start()
    demo = gallery(catalog, desk, Visitors(apart=not options.local))
    warming.join()
    address = open_server(demo, options)
    print(f"The studio is open at {address} (Ctrl-C closes it)", flush=True)
    if options.warning(address):
        print(options.warning(address), flush=True)
    try:
        demo.block_thread()
    finally:
        over.set()
        desk.close()


def open_server(demo: gr.Blocks, options: Launch | None = None) -> str:
    """Serve a page in the background and return its address.

    Raises `ValueError` for a host other than this machine that nobody allowed, and for a port that is taken.
    """
    options = options or Launch(open_browser=False)
    options.check()
    hosts = trusted_hosts(options.host, options.trusted)
    try:
        _, address, _ = demo.launch(
            server_name=options.host, server_port=options.port or None, inbrowser=options.open_browser, share=False,
            auth=list(options.auth) or None, quiet=True, prevent_thread_lock=True, show_error=False, footer_links=[],
            max_file_size=max(MAX_PNG_BYTES, *(kind.largest for kind in CATALOG)), theme=_theme(),
            css_paths=[STYLE, web_gallery.STYLE], enable_monitoring=False,
            run_history=False, max_threads=512, ssr_mode=False, pwa=False, strict_cors=True, allowed_paths=[],
            app_kwargs={
                "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(Guard)],
                "routes": [Route(f"/{VIEWER}", _viewer)],
            },
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"port {options.port or '7860 to 7959'} is taken: choose another with --port") from error
    return address


def _viewer(_: Request) -> Response:
    """Return 3Dmol.js, which a page asks for when there are molecules to show."""
    return Response(viewer_script(), media_type="text/javascript", headers={"cache-control": "max-age=86400"})


def _whole(catalog: tuple[type[Study], ...]) -> tuple[type[Study], ...]:
    """Return every study a worker may meet in the user's store: the studio's own, and those of this page."""
    return (*CATALOG, *(study for study in catalog if study not in CATALOG))


def _keep_warm(desk: Desk, over: threading.Event) -> None:
    """Have a worker ready as long as the page is open."""
    while not over.is_set():
        desk.tend(warm=True)
        over.wait(HEARTBEAT)


def _warm(study: type[Study]) -> None:
    """Take and draw the first step of a study before its page opens, so that what drawing needs is loaded."""
    try:
        with closing(study().run()) as run:
            first = next(run, None)
        if first is not None:
            study().view(first)
    except (ValueError, OSError) as error:
        logging.getLogger(__name__).info("nothing loaded ahead: %s", error)


def _join(demo: gr.Blocks, pages: list[Page], rows: Rows) -> None:
    """Wire what concerns all pages: links, and pictures that bring their knobs back."""
    restored = [knob for page in pages for knob in page.knobs] + [page.upload for page in pages] + rows.every

    def opened(request: gr.Request) -> dict[Any, Any]:
        return link_updates(pages, rows, dict(request.query_params))

    demo.load(opened, None, [*restored, *(page.ticket for page in pages)], **QUIET)
    demo.load(None, None, None, js=ARROWS, api_visibility="private")
    for page in pages:
        demo.load(page.refresh, list(page.knobs), [page.forecast, page.link], **QUIET)

        def dropped(path: str | None, page: Page = page) -> dict[Any, Any]:
            return drop_updates(pages, rows, page, path)

        page.upload.upload(dropped, page.upload, restored, **SAYING)


def link_updates(pages: list[Page], rows: Rows | None, query: Mapping[str, str]) -> dict[Any, Any]:
    """Return the updates that a link asks for; nothing for a strange one.

    A link to a run brings its knobs and watches it; a link to a study brings its knobs, clamped.
    """
    if "run" in query:
        try:
            row = pages[0].desk.store.row(query["run"])
            page = next(page for page in pages if page.study.name == row.study)
        except (KeyError, StopIteration):
            gr.Warning("It may have been deleted, or was of another studio.", title="This run is not here")
            return {pages[0].upload: None}
        return page.restored(clamp(page.study, row.knobs)) | {page.ticket: row.id} | _selected(rows, page)
    name = query.get("study", pages[0].study.name if len(pages) == 1 else "")
    page = next((page for page in pages if page.study.name == name), None)
    if page is None:
        return {pages[0].upload: None}
    return page.restored(clamp(page.study, query)) | _selected(rows, page)


def drop_updates(pages: list[Page], rows: Rows | None, here: Page, path: str | None) -> dict[Any, Any]:
    """Return the updates that a dropped picture asks for; one without a recipe gives a warning and changes nothing."""
    if path is None:
        return {here.upload: None}
    try:
        recipe = png_recipe(_read(Path(path)))
        page = next((page for page in pages if page.study.name == recipe.study), None)
        if page is None:
            raise ValueError(f"this picture is of the study {recipe.study[:60]!r}, which is not on this page")
        study = clamp(page.study, recipe.knobs)
    except ValueError as error:
        gr.Warning(say(error), title="This picture restores nothing")
        return {here.upload: None}
    gr.Info("Every knob is as it was for this picture.", title="Restored")
    return page.restored(study) | {here.upload: None} | _selected(rows, page)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PNG_BYTES + 1)
    except OSError as error:
        raise ValueError("this file could not be read: drop it again") from error


def _selected(rows: Rows | None, page: Page) -> dict[Any, Any]:
    return {} if rows is None else rows.selected(page.study)


def _theme() -> Base:
    theme = Soft(
        primary_hue="indigo", secondary_hue="slate", neutral_hue="slate", radius_size="lg",
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    return theme.set(
        block_title_background_fill="none", block_title_background_fill_dark="none", block_title_padding="0",
        block_title_text_color="*neutral_800", block_title_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
    )  # fmt: skip
