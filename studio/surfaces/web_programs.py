"""Named endpoints for programs: hand a run in, ask how it stands, stop it; a client may come back later for it."""

__all__ = ["programs"]

from studio.core.controls import clamp
from studio.desk.desk import Desk
from studio.files.archive import parse_recipe
from studio.surfaces.web_gradio import api, gr
from studio.surfaces.web_html import say
from studio.surfaces.web_visitor import Visitors


def programs(desk: Desk, visitors: Visitors) -> None:
    """Add the endpoints `submit`, `status` and `stop` to the open Blocks."""

    def submit(recipe: str, request: gr.Request) -> str:
        """Hand in a run by its recipe, {"study": NAME, "knobs": {...}} as JSON; return its id."""
        try:
            wanted = parse_recipe(recipe)
            return desk.submit(clamp(desk.kind(wanted.study), wanted.knobs), visitors.owner(request))
        except ValueError as error:
            raise gr.Error(say(error), print_exception=False) from error

    def status(run: str) -> dict:
        """Return how a run stands: state, step, total, outcome, error, seconds, place in the queue."""
        try:
            row = desk.row(run)
        except KeyError as error:
            raise gr.Error("there is no such run", print_exception=False) from error
        ahead = desk.place(run)[0] if row.state == "queued" else 0
        names = ("id", "study", "knobs", "state", "step", "total", "phase", "outcome", "error", "seconds", "digest")
        return {name: getattr(row, name) for name in names} | {"ahead": ahead}

    def stop(run: str, request: gr.Request) -> str:
        """Stop a run after the step it is in; return its state."""
        try:
            row = desk.row(run)
        except KeyError as error:
            raise gr.Error("there is no such run", print_exception=False) from error
        if visitors.may(request, row):
            desk.stop(run)
        return row.state

    for endpoint in (submit, status, stop):
        api(endpoint, api_name=endpoint.__name__, concurrency_limit=None, queue=False)
