"""The studio in a browser: every study in a tab, served to this machine only, with no request to any other."""

__all__ = ["drop_updates", "gallery", "launch", "link_updates", "open_server"]

import logging
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.core.controls import clamp
from studio.desk.local import Desk
from studio.files.archive import MAX_PNG_BYTES, png_recipe
from studio.studies.study import Study
from studio.surfaces.web_gradio import Base, Soft, gr
from studio.surfaces.web_html import say
from studio.surfaces.web_page import QUIET, Page, study_page

LOOPBACK = ("127.0.0.1", "localhost")
STYLE = Path(__file__).with_name("web.css")
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
}


def gallery(catalog: tuple[type[Study], ...]) -> gr.Blocks:
    """Return the page of every study, in tabs where there are several."""
    desk = Desk()
    first, *others = catalog
    title = "Optimisation studio" if others else first.title
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as demo:
        tabs = gr.Tabs(elem_classes="st-tabs") if others else None
        if tabs is None:
            pages = [study_page(first, desk)]
        else:
            pages = []
            with tabs:
                for study in catalog:
                    with gr.Tab(study.title, id=study.name):
                        pages.append(study_page(study, desk))
        _join(demo, pages, tabs)

        def left(request: gr.Request) -> None:
            desk.leave(request.session_hash or "")

        demo.unload(left)
    demo.queue(max_size=32)
    return demo


def launch(catalog: tuple[type[Study], ...], host: str = "127.0.0.1", port: int = 0, open_browser: bool = True) -> None:
    """Open the studies in the browser and stay until Ctrl-C; port 0 takes a free one from 7860 on."""
    warming = threading.Thread(target=_warm, args=(catalog[0],), daemon=True)
    warming.start()
    demo = gallery(catalog)
    warming.join()
    address = open_server(demo, host, port, open_browser)
    print(f"The studio is open at {address} (Ctrl-C closes it)", flush=True)
    demo.block_thread()


def open_server(demo: gr.Blocks, host: str = "127.0.0.1", port: int = 0, open_browser: bool = False) -> str:
    """Serve a page in the background and return its address.

    Raises `ValueError` for a host other than this machine, and for a port that is taken.
    """
    if host not in LOOPBACK:
        raise ValueError(f"the page has no password, so it serves 127.0.0.1 only, not {host}: use an SSH tunnel")
    try:
        _, address, _ = demo.launch(
            server_name=host, server_port=port or None, inbrowser=open_browser, share=False, quiet=True,
            prevent_thread_lock=True, show_error=False, footer_links=[], max_file_size=MAX_PNG_BYTES,
            theme=_theme(), css_paths=STYLE, enable_monitoring=False, run_history=False, ssr_mode=False, pwa=False,
            app_kwargs={"middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)), Middleware(_Guard),
            ]},
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"port {port or '7860 to 7959'} is taken: choose another with --port") from error
    return address


def _warm(study: type[Study]) -> None:
    """Take the first step of a study before its page opens, so that what it loads is loaded at the first Run."""
    try:
        with closing(study().run()) as run:
            next(run, None)
    except (ValueError, OSError) as error:
        logging.getLogger(__name__).info("nothing loaded ahead: %s", error)


def _join(demo: gr.Blocks, pages: list[Page], tabs: gr.Tabs | None) -> None:
    """Wire what concerns all pages: links, and pictures that bring their knobs back."""
    outputs = [knob for page in pages for knob in page.knobs] + [page.upload for page in pages]
    outputs += [tabs] if tabs is not None else []

    def opened(request: gr.Request) -> dict[Any, Any]:
        return link_updates(pages, tabs, dict(request.query_params))

    demo.load(opened, None, outputs, **QUIET)
    for page in pages:
        demo.load(page.refresh, list(page.knobs), [page.forecast, page.link], **QUIET)

        def dropped(path: str | None, page: Page = page) -> dict[Any, Any]:
            return drop_updates(pages, tabs, page, path)

        page.upload.upload(dropped, page.upload, outputs, **QUIET)


def link_updates(pages: list[Page], tabs: gr.Tabs | None, query: Mapping[str, str]) -> dict[Any, Any]:
    """Return the updates that a link asks for: its study's knobs, clamped, and its tab; nothing for a strange link."""
    name = query.get("study", pages[0].study.name if len(pages) == 1 else "")
    page = next((page for page in pages if page.study.name == name), None)
    if page is None:
        return {pages[0].upload: None}
    return page.restored(clamp(page.study, query)) | _selected(tabs, page)


def drop_updates(pages: list[Page], tabs: gr.Tabs | None, here: Page, path: str | None) -> dict[Any, Any]:
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
    return page.restored(study) | {here.upload: None} | _selected(tabs, page)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PNG_BYTES + 1)
    except OSError as error:
        raise ValueError("this file could not be read: drop it again") from error


def _selected(tabs: gr.Tabs | None, page: Page) -> dict[Any, Any]:
    return {} if tabs is None else {tabs: gr.Tabs(selected=page.study.name)}


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


class _Guard:
    """Adds headers that keep the page to itself: nothing is loaded from, or framed by, another host."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, guarded if scope["type"] == "http" else send)
