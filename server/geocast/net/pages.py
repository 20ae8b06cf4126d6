"""The page at /docs, on which the calls can be tried.

Its files are sent from memory, a slice at a time: so who does not read one holds a slice of it, and no descriptor.
"""

import functools
from collections.abc import AsyncIterator
from pathlib import Path

import swagger_ui_bundle
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, StreamingResponse

from .. import problems
from ..problems import Problem

SLICE_BYTES = 64 * 1024
SCRIPT, STYLE, ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"

_FILES = {SCRIPT: "text/javascript", STYLE: "text/css", ICON: "image/png"}


def add_pages(app: FastAPI) -> None:
    """Add the page and its files."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="geocast api",
            swagger_js_url=f"/docs/{SCRIPT}",
            swagger_css_url=f"/docs/{STYLE}",
            swagger_favicon_url=f"/docs/{ICON}",
        )

    @app.get("/docs/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _FILES:
            raise Problem(problems.NOT_FOUND)
        content = _content(name)
        length = {"Content-Length": str(len(content))}
        return StreamingResponse(_slices(content), 200, length, _FILES[name])


@functools.cache
def _content(name: str) -> bytes:
    return (Path(swagger_ui_bundle.swagger_ui_path) / name).read_bytes()


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), SLICE_BYTES):
        yield content[start : start + SLICE_BYTES]
