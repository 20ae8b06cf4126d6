"""The public content of the api listener: two documentation pages, the files that they load, and the API documents.

`make interfaces` writes the documents and the stream's page (static/openapi.json, asyncapi.json and stream.html).

Content is sent from memory in slices, so for a client that reads slowly only one slice has to wait, and no file is
open. Browsers ask each time whether their copy is still current (ETag). Pages may load and run only content from this
listener.
"""

import functools
from collections.abc import Container
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ..model import problems
from ..model.problems import Problem
from ..policy import Policy
from .context import ApiContext
from .examples import STEP_MS
from .openapi import openapi
from .responses import etag, unless_known

_FILES = {  # by name: the package that contains the file, the folder in the package, and the media type
    "calls.html": ("geocast.api", "static", "text/html"),
    "stream.html": ("geocast.api", "static", "text/html"),
    "asyncapi.json": ("geocast.api", "static", "application/json"),
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
        "img-src 'self' data:; "  # Swagger UI's style sheet contains its icons
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """The content of a page or file, with its media type and its ETag."""

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Shown":
        """Return a `Shown` with this content and its ETag."""
        return cls(content, media_type, etag(content))

    def answer(self, request: Request) -> Response:
        """Return a response with status 200 and the content, or 304 if the client already has it."""
        return unless_known(request, self.content, {**_HEADERS, "ETag": self.tag}, self.media_type)


def page_routes(api: ApiContext, paths: Container[str]) -> list[Route]:
    """Return the routes of `/`, `/docs`, the files under `/docs/`, the icon, and the documents of both listeners.

    The OpenAPI document describes these `paths`. It is cached: making it takes 2 ms, and anybody may request it without
    a token.
    """
    made: tuple[Policy, int, Shown] | None = None

    async def start(_: Request) -> Response:
        return RedirectResponse("/docs")

    async def openapi_json(request: Request) -> Response:
        nonlocal made
        policy, step = api.policy, api.clock.now().wall_ms // STEP_MS
        if made is None or made[:2] != (policy, step):
            made = policy, step, Shown.of(openapi(paths, policy, step * STEP_MS), "application/json")
        return made[2].answer(request)

    def shows(path: str, name: str = "") -> Route:
        async def show(request: Request) -> Response:
            found = name or request.path_params["name"]
            if found not in _FILES:
                raise Problem(problems.NOT_FOUND)
            return _file(found).answer(request)

        return Route(path, show)

    return [
        Route("/", start),
        shows("/docs", "calls.html"),
        shows("/docs/stream", "stream.html"),
        shows("/favicon.ico", "icon.svg"),  # browsers ask for it when they show a JSON document
        shows("/v1/asyncapi.json", "asyncapi.json"),
        Route("/openapi.json", openapi_json),
        shows("/docs/{name}"),
    ]


@functools.cache
def _file(name: str) -> Shown:
    package, folder, media_type = _FILES[name]
    return Shown.of(resources.files(package).joinpath(folder, name).read_bytes(), media_type)
