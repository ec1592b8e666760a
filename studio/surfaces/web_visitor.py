"""Who visits a page: a name for the limits of a visitor, and what that visitor may do to a run."""

__all__ = ["COOKIE", "Visitors"]

from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from studio.desk.store import Row
from studio.surfaces.web_gradio import gr

COOKIE = "studio-visitor"
LONGEST = 64


@dataclass(frozen=True)
class Visitors:
    """The visitors of a studio; `apart` where others can reach it: then everybody rules only over runs of their own."""

    apart: bool = False

    def owner(self, request: gr.Request) -> str:
        """Return a visitor's name: the one they logged in with, else a cookie's, else that of the connection."""
        user = getattr(request, "username", None)
        if user:
            return f"user {user}"
        cookies = SimpleCookie()
        try:
            cookies.load(str(request.headers.get("cookie") or ""))
        except CookieError:
            cookies.clear()
        found = cookies.get(COOKIE)
        return f"page {found.value[:LONGEST] if found is not None else request.session_hash or ''}"

    def may(self, request: gr.Request, row: Row) -> bool:
        """Return whether a visitor may hold, stop or delete a run."""
        return not self.apart or row.owner == self.owner(request)

    def seen(self, request: gr.Request) -> str | None:
        """Return the owner whose runs a visitor sees in the list, None for everybody's."""
        return self.owner(request) if self.apart else None
