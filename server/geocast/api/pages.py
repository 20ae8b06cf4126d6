"""What the api listener shows without a token: two pages for people, the files that they load, and the documents.

All is sent from memory, a slice at a time: so who does not read it holds a slice, and no descriptor. A browser asks
each time whether its copy is still good (ETag). A page may load and run what is from here, and nothing else.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..model import problems
from ..model.problems import Problem
from .openapi import ApiRoute
from .responses import unless_known

_FILES = {  # the package that has the file, the folder there, and the media type
    "calls.html": ("geocast.api", "static", "text/html"),
    "calls.js": ("geocast.api", "static", "text/javascript"),
    "pages.css": ("geocast.api", "static", "text/css"),
    "icon.svg": ("geocast.api", "static", "image/svg+xml"),
    "swagger-ui-bundle.js": ("mkdocs_swagger_ui_tag", "swagger-ui/javascripts", "text/javascript"),
    "swagger-ui.css": ("mkdocs_swagger_ui_tag", "swagger-ui/stylesheets", "text/css"),
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; "  # Swagger UI's style sheet brings its icons with it
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """Something as it is sent, and the tag by which a browser asks for it again."""

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Shown":
        """This content, under a tag that no other has."""
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """200 with the content, or 304 to who has it already."""
        return unless_known(request, self.content, {**_HEADERS, "ETag": self.tag}, self.media_type)


def page_routes(made: Mapping[str, Callable[[], Shown]]) -> list[ApiRoute]:
    """Return the routes of the page of the calls, of its files, of the way to it from `/`, and of `made`, by path."""

    async def start(_: Request) -> Response:
        return RedirectResponse("/docs")

    async def calls(request: Request) -> Response:
        return _file("calls.html").answer(request)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            raise Problem(problems.NOT_FOUND)
        return _file(name).answer(request)

    return [
        ApiRoute("GET", "/", start),
        ApiRoute("GET", "/docs", calls),
        *(_made(path, make) for path, make in made.items()),
        ApiRoute("GET", "/docs/{name}", file),
    ]


def _made(path: str, make: Callable[[], Shown]) -> ApiRoute:
    async def show(request: Request) -> Response:
        return make().answer(request)

    return ApiRoute("GET", path, show)


@functools.cache
def _file(name: str) -> Shown:
    package, folder, media_type = _FILES[name]
    return Shown.of(resources.files(package).joinpath(folder, name).read_bytes(), media_type)
