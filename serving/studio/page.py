"""The studio's page and the documentation of the HTTP interface, as routes of a gateway."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engines.store import Digest

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "studio.html", "/docs": "docs.html"}
"""Pages by path; all else that they load lies under /studio/."""
SAMPLE = "sample.jpg"
"""The photo to try the page with, under /studio/."""
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
HEADERS = {
    # Nothing from elsewhere, no scripts or styles in the page itself, and no frame around it. Pictures come as blobs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def attach(sample: Path | None = None) -> Callable[[FastAPI], None]:
    """Gives a function that adds the pages to a gateway's application, for `create_app(extend=...)`.

    Args:
        sample: a JPEG that the page offers to try it with; None for none.
    """
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}
    if sample is not None:
        files[SAMPLE] = sample

    async def page(request: Request) -> Response:
        return _answer(request, files[PAGES[request.url.path]])

    async def asset(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None or file.suffix == ".html":
            raise HTTPException(404)
        return _answer(request, file)

    def extend(app: FastAPI) -> None:
        app.router.routes += [*(Route(path, page) for path in PAGES), Route("/studio/{name}", asset)]

    return extend


@functools.cache
def _read(file: Path) -> tuple[bytes, str]:
    data = file.read_bytes()
    return data, f'"{Digest.of(data).sha256[:32]}"'


def _answer(request: Request, file: Path) -> Response:
    """A file of the page; browsers ask again each time, and are told if theirs is still the one."""
    data, tag = _read(file)
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=MEDIA_TYPES[file.suffix], headers=headers)
