"""What stands before the page: headers that keep it to itself, no orders from other sites, a name for each visitor."""

__all__ = ["LOOPBACK", "Guard", "trusted_hosts"]

import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.surfaces.web_visitor import COOKIE

LOOPBACK = ("127.0.0.1", "localhost")
ANY = ("0.0.0.0", "::")
READING = ("GET", "HEAD", "OPTIONS")
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
MONTH = 30 * 86400


def trusted_hosts(host: str, named: Sequence[str] = ()) -> list[str]:
    """Return the names under which a page answers: those of this machine for any address, and those that were named."""
    hosts = {*LOOPBACK, *named}
    if host in ANY:
        hosts.add(socket.gethostname())
        with suppress(OSError):
            name, aliases, addresses = socket.gethostbyname_ex(socket.gethostname())
            hosts |= {name, *aliases, *addresses}
    else:
        hosts.add(host)
    return sorted(hosts)


class Guard:
    """Refuses what another site wants done here, adds headers, and gives a new visitor a cookie with a random name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 where another site's page sent it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] not in READING and _foreign(headers):
            refusal = PlainTextResponse("This studio takes no orders from other sites.", status_code=403)
            await refusal(scope, receive, send)
            return
        new = scope["method"] == "GET" and scope["path"] == "/" and f"{COOKIE}=" not in headers.get("cookie", "")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]
                if new:
                    cookie = f"{COOKIE}={secrets.token_hex(16)}; HttpOnly; SameSite=Strict; Path=/; Max-Age={MONTH}"
                    extra.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, guarded)


def _foreign(headers: Headers) -> bool:
    """Return whether a request comes from a page of another site."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") == "cross-site":
        return True
    return origin is not None and urlsplit(origin).netloc != headers.get("host")
