"""The page's routes; a request names photographs by keys, never by files."""

from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from hcl.explore.explorer import Explorer, Point
from hcl.explore.guard import LocalOnly
from hcl.explore.uploads import RefusedError, read_upload, require_image_type

STATIC = {
    "/": ("index.html", "text/html"),
    "/explore.css": ("explore.css", "text/css"),
    "/explore.js": ("explore.js", "text/javascript"),
}
"""The package's own files, read once; no other route serves files."""

Share = Annotated[float, Query(ge=0, le=1)]


def build_app(
    explorer: Explorer, *, most_bytes: int, most_pixels: int, clusters: int, most_clusters: int
) -> FastAPI:
    """Build the application.

    Args:
        explorer: object that answers the requests.
        most_bytes: maximum size of an uploaded file.
        most_pixels: maximum number of pixels of an uploaded photograph.
        clusters: number of clusters that the page begins with.
        most_clusters: largest number of clusters that the page offers.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(LocalOnly)
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    for address, (name, kind) in STATIC.items():
        app.get(address)(_served(files("hcl.explore").joinpath("static", name).read_bytes(), kind))

    @app.get("/api/page")
    def page() -> dict[str, Any]:
        return {
            "data": explorer.library.name,
            "images": [seen.name for seen in explorer.library.images],
            "clusters": clusters,
            "most_clusters": min(most_clusters, len(explorer.hierarchy.leaves)),
            "most_megabytes": most_bytes / 1e6,
        }

    @app.post("/api/photographs", status_code=201)
    async def upload(request: Request) -> dict[str, str]:
        require_image_type(request.headers.get("content-type", ""))
        content = await _body(request, most_bytes)
        picture = await run_in_threadpool(read_upload, content, most_pixels)
        return {"key": await run_in_threadpool(explorer.add, picture)}

    @app.get("/api/photographs/{key}/picture")
    def picture(key: str) -> Response:
        return Response(explorer.photograph(key).jpeg, media_type="image/jpeg")

    @app.get("/api/photographs/{key}/components")
    def components(key: str, clusters: int, crf: bool = False) -> dict[str, Any]:
        return explorer.components(key, clusters, crf=crf)

    @app.get("/api/photographs/{key}/part")
    def part(key: str, x: Share, y: Share, clusters: int, crf: bool = False) -> dict[str, Any]:
        return explorer.select(key, Point(x, y), clusters, crf=crf)

    return app


def _served(content: bytes, kind: str) -> Any:
    def serve() -> Response:
        return Response(content, media_type=kind)

    return serve


async def _body(request: Request, most: int) -> bytes:
    """Read the body of a request, but no further than is allowed."""
    too_large = RefusedError(413, f"The file is larger than {most / 1e6:g} MB: make it smaller first.")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > most:
        raise too_large
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise too_large
    return bytes(content)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": str(error)}, error.status)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    places = sorted({str(problem["loc"][-1]) for problem in error.errors()})
    return JSONResponse({"error": f"The request is invalid: {', '.join(places)}."}, 422)
