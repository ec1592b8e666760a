"""The words and small drawings of a page as HTML; whatever came from a person is escaped here, once."""

__all__ = [
    "EMPTY_STAGE",
    "alert_html",
    "clock",
    "header_html",
    "idle_html",
    "pictures_html",
    "say",
    "status_html",
    "waiting_html",
    "working_html",
]

import base64
import html

from studio.desk.desk import Frame
from studio.files.archive import Recipe, png_bytes
from studio.render.raster import sheet
from studio.scenes import Images
from studio.studies.study import Study

EMPTY_STAGE = '<div class="st-empty"><span class="st-mark" aria-hidden="true"></span>Your picture grows here.</div>'
SINGLY = 9


def say(text: object) -> str:
    """Return text made safe for HTML, attributes included."""
    return html.escape(str(text), quote=True)


def header_html(study: type[Study]) -> str:
    """Return the title, the summary and the links to the papers of a study."""
    links = " · ".join(
        f'<a href="{say(paper.link)}" target="_blank" rel="noopener noreferrer">{say(paper.title)}</a> ({paper.year})'
        for paper in study.papers
    )
    return f'<header class="st-header"><h2>{say(study.title)}</h2><p>{say(study.summary)}</p><p>{links}</p></header>'


def pictures_html(images: Images, recipe: Recipe | None = None, title: str = "") -> str:
    """Return pictures as exact PNGs inside the page, a few of them singly with captions, many as one sheet."""
    frames = [images.pixels[index] for index in range(len(images.pixels))]
    captions = list(images.captions)
    if len(frames) > SINGLY:
        frames, captions = [sheet(images)], [f"{len(images.pixels)} pictures"]
    captions += [""] * (len(frames) - len(captions))
    figures = []
    for pixels, caption in zip(frames, captions, strict=False):
        data = base64.b64encode(png_bytes(pixels, recipe)).decode()
        note = f"<figcaption>{say(caption)}</figcaption>" if caption else ""
        height, width, _ = pixels.shape
        figures.append(
            f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
            f'alt="{say(caption or title or "the picture so far")}" decoding="sync">{note}</figure>'
        )
    heading = f"<h4>{say(title)}</h4>" if title else ""
    grid = f'<div class="st-pictures st-of-{len(figures) if len(figures) < 5 else 3}">{"".join(figures)}</div>'
    return f'<div class="st-set">{heading}{grid}</div>'


def idle_html(forecast: str = "") -> str:
    """Return the status line before a run."""
    return _status(0.0, "Ready", (say(forecast),), "", "idle")


def working_html(label: str = "") -> str:
    """Return the status line while the first step is being prepared."""
    return _status(None, label or "Getting ready", ("loading and first step",), "")


def waiting_html(ahead: int, seconds: float | None = None) -> str:
    """Return the status line of a run whose turn has not come, with the expected wait where one can tell."""
    place = f"{ahead} {'run' if ahead == 1 else 'runs'} ahead of this one" if ahead else "next in line"
    return _status(None, "Waiting", (place, f"about {clock(seconds)}" if seconds else ""), "")


def status_html(frame: Frame, label: str = "") -> str:
    """Return the bar, the step, the time worked and the time left; at the end also the outcome."""
    snapshot = frame.snapshot
    share = snapshot.step / snapshot.total if snapshot.total else 1.0
    parts = [f"step {snapshot.step:,} of {snapshot.total:,}", f"{clock(frame.seconds)} worked"]
    phase = snapshot.phase.capitalize()
    ended = "Interrupted · " if frame.row.state == "interrupted" else "Stopped · "
    before = ended if frame.stopped else "Paused · " if frame.held else ""
    state = "Done" if frame.ended and not frame.stopped else before + phase
    if not frame.ended and frame.remaining is not None and frame.remaining >= 0.5:
        parts.append(f"about {clock(frame.remaining)} left")
    outcome = snapshot.outcome
    if frame.stopped and not outcome:
        outcome = frame.row.error or "What it found so far is kept: it can go on from here."
    kind = "stopped" if frame.stopped else "done" if frame.ended else "held" if frame.held else "live"
    return _status(share, f"{label}: {state}" if label else state, tuple(parts), outcome, kind)


def alert_html(sentence: str) -> str:
    """Return a sentence about what went wrong, in the place of the status line."""
    return f'<div class="st-status st-alert" role="alert"><strong>This did not run.</strong> {say(sentence)}</div>'


def _status(share: float | None, state: str, parts: tuple[str, ...], outcome: str, kind: str = "live") -> str:
    percent = 0 if share is None else round(100 * min(max(share, 0.0), 1.0))
    now = "" if share is None else f' aria-valuenow="{percent}"'
    busy = " st-busy" if share is None else ""
    facts = "".join(f"<span>{part}</span>" for part in parts if part)
    end = f'<p class="st-outcome" role="status">{say(outcome)}</p>' if outcome else ""
    return (
        f'<div class="st-status st-{kind}"><div class="st-bar{busy}" role="progressbar" aria-label="progress" '
        f'aria-valuemin="0" aria-valuemax="100"{now}><i style="width:{percent}%"></i></div>'
        f'<div class="st-facts"><strong>{say(state)}</strong>{facts}</div>{end}</div>'
    )


def clock(seconds: float) -> str:
    """Return a number of seconds as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
