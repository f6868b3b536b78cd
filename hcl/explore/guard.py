"""Who may talk to the page: this computer's own browser, on this very page."""

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
    """Answers requests that name this computer and come from its own pages, and refuses all others with 403.

    A foreign site whose name is made to point here (DNS rebinding) sends its own name as Host; a foreign page
    that sends a request here sends its own Origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; add the headers of safety to whatever is sent."""
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
    """Why a request is refused, or None."""
    hosts = {f"{name}:{port}" for name in NAMES} | (NAMES if port == 80 else set())
    if headers.get("host", "").lower() not in hosts:
        return "This page answers to 127.0.0.1 and localhost only."
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
        return "Another site may not ask here."
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "Another site may not ask here."
    return None
