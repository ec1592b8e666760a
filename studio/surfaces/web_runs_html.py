"""The cards of past runs and what is said about a chosen one, as HTML; whatever came from a person is escaped."""

__all__ = ["STATES", "asked", "cards_html", "chosen_html", "differences_html", "empty_html", "picture"]

import base64
import time
from collections.abc import Mapping, Sequence

from studio.core.controls import controls
from studio.desk.desk import Desk
from studio.desk.store import Row
from studio.files.archive import png_bytes
from studio.render.raster import still, thumbnail
from studio.studies.study import Study
from studio.surfaces.web_html import clock, say

SIDE = 128
STATES = {
    "queued": "waiting", "running": "running", "held": "paused", "done": "done", "stopped": "stopped",
    "failed": "failed", "interrupted": "interrupted",
}  # fmt: skip


def cards_html(desk: Desk, rows: Sequence[Row]) -> str:
    """Return a card for every run: its picture, what was asked, how it ended; each is a button that chooses it."""
    return f'<div class="st-cards">{"".join(_card(desk, row) for row in rows)}</div>'


def empty_html(searched: bool) -> str:
    """Return what stands in the place of the cards where there are none."""
    words = "No run holds these words." if searched else "Runs appear here: from this page, a notebook or a terminal."
    return f'<div class="st-empty st-none"><span class="st-mark" aria-hidden="true"></span>{words}</div>'


def chosen_html(row: Row, study: type[Study]) -> str:
    """Return what is said about a chosen run: state, outcome, when, how long, on what, and its link."""
    end = row.error or row.outcome or f"step {row.step:,} of {row.total:,}"
    facts = [
        STATES[row.state], time.strftime("%d %b %Y, %H:%M", time.localtime(row.submitted)),
        f"{clock(row.seconds)} worked", row.device, f"version {row.version}", f"seed {row.knobs.get('seed', '')}",
    ]  # fmt: skip
    bits = f'<p class="st-needs">bytes {say(row.digest[:12])}</p>' if row.digest else ""
    more = "Watch it" if row.open else "Go on from here, or change its knobs" if row.state != "done" else "Open it"
    return (
        f'<div class="st-about"><h3>{say(study.title)}</h3><p class="st-outcome">{say(end)}</p>'
        f'<p class="st-needs">{say(" · ".join(fact for fact in facts if fact))}</p>{bits}'
        f'<p><a href="?run={say(row.id)}">{more}</a></p></div>'
    )


def differences_html(left: Mapping[str, object], right: Mapping[str, object]) -> str:
    """Return the knobs that two runs have both and in which they differ, as a table."""
    names = [name for name in left if name in right and left[name] != right[name]]
    if not names:
        return '<p class="st-needs">Every knob that both have is the same.</p>'
    rows = "".join(
        f"<tr><th>{say(name)}</th><td>{say(left[name])}</td><td>{say(right[name])}</td></tr>" for name in names
    )
    return f'<table class="st-differ"><caption>Where they differ</caption>{rows}</table>'


def asked(desk: Desk, row: Row) -> str:
    """Return the knobs of a run that were turned, words first, as a line."""
    if not desk.knows(row.study):
        return ""
    plain = {control.name: control.default for control in controls(desk.kind(row.study))}
    turned = {name: value for name, value in row.knobs.items() if name in plain and value != plain[name]}
    words = [str(value) for value in row.knobs.values() if isinstance(value, str) and len(value.split()) > 1]
    rest = [f"{name} {value}" for name, value in turned.items() if str(value) not in words]
    return ", ".join([*words, *rest])[:120] or "as it comes"


def picture(desk: Desk, row: Row) -> bytes:
    """Return a small PNG of a run, made once when it has ended; empty where it draws none or nothing was kept."""
    if not row.open and (kept := desk.store.thumbnail(row.id)) is not None:
        return kept
    try:
        pixels = still(desk.study(row).view(desk.snapshot(row)))
    except (KeyError, ValueError):
        return b""
    data = b"" if pixels is None else png_bytes(thumbnail(pixels, SIDE))
    if not row.open:
        desk.store.keep_thumbnail(row.id, data)
    return data


def _card(desk: Desk, row: Row) -> str:
    known = desk.knows(row.study)
    title = desk.kind(row.study).title if known else row.study
    done = f"{row.step:,} of {row.total:,}" if row.state != "done" and row.total else clock(row.seconds)
    data = picture(desk, row) if row.frame and known else b""
    image = '<span class="st-mark"></span>'
    if data:
        image = f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" alt="">'
    return (
        f'<button type="button" class="st-runcard st-is-{row.state}" data-run="{say(row.id)}" aria-pressed="false">'
        f'<span class="st-thumb">{image}</span><b>{say(title)}</b><span class="st-asked">{say(asked(desk, row))}</span>'
        f'<small><i class="st-dot"></i>{STATES[row.state]} · {done}</small></button>'
    )
