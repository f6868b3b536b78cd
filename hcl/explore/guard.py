"""Access to the page: only for browsers on this computer, and not for requests from other sites."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = frozenset({"127.0.0.1", "localhost"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LocalOnly:
    """Middleware that refuses, with 403, requests for another host or from pages of another site.

    A foreign site whose name is made to point here (DNS rebinding) sends its own name as Host; a foreign page
    that sends a request here sends its own Origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it, and add the security headers to the response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        problem = _problem(Headers(scope=scope), scope["server"][1])
        if problem is None:
            await self.app(scope, receive, send_guarded)
        else:
            await JSONResponse({"error": problem}, 403)(scope, receive, send_guarded)


def _problem(headers: Headers, port: int) -> str | None:
    """Return why a request is refused, or None."""
    hosts = {f"{name}:{port}" for name in NAMES} | (NAMES if port == 80 else set())
    if headers.get("host", "").lower() not in hosts:
        return "This page is served only at 127.0.0.1 and localhost."
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
        return "Requests from other sites are refused."
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "Requests from other sites are refused."
    return None
