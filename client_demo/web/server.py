"""Server of the pages in this folder, for this machine: an explicit list of files, and strict headers.

    routes = [*files(page_files("map", "list", "scene")), Route("/events", events)]
    async with serving(application(routes, content_policy(connect=[node.stream_url]))) as url: ...

Rule 1  Only files that are named here or by the caller are served, so no path can lead out of a folder.
Rule 2  No page may run or load anything from other servers (Content-Security-Policy) or turn a string into markup
        (Trusted Types). The caller names all other servers that a page may talk to.
Rule 3  The server listens on loopback unless configured otherwise, as in a container. Wherever it listens, it refuses
        requests for another host's name: a foreign page that points its own name at 127.0.0.1 (DNS rebinding) gets
        nothing.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WEB = Path(__file__).parent
ENDING = "geocast.ending"  # in the scope of each request: an event that is set when the server ends
MODULES = WEB / "node_modules"  # installed by `npm ci` from the lock file


def beside(*names: str) -> dict[str, Path]:
    """Return files of this folder, by their URL paths. The path of each file is a slash and the file's name."""
    return {f"/{name}": WEB / name for name in names}


LIBRARY = beside(*(f"geocast/{part.name}" for part in (WEB / "geocast").glob("*.js")))
_SHARED_PARTS = (
    "base.css",
    "basemap.js",
    "callmap.css",
    "callmap.js",
    "credits.js",
    "elements.js",
    "icon.svg",
    "service-client.js",
    "shapes.js",
    "status.js",
    "theme.js",
    "trust.js",
)
SHARED = beside(*(f"shared/{name}" for name in _SHARED_PARTS)) | {"/favicon.ico": WEB / "shared" / "icon.svg"}
_MAP_MODULES = (
    "maplibre-gl/dist/maplibre-gl.css",
    "maplibre-gl/dist/maplibre-gl.mjs",
    "maplibre-gl/dist/maplibre-gl-worker.mjs",
    "h3-js/dist/browser/h3-js.es.js",
    *(
        f"topojson-client/src/{name}.js"
        for name in ("bisect", "feature", "identity", "mesh", "reverse", "stitch", "transform")
    ),
    "us-atlas/counties-10m.json",
    "world-atlas/countries-50m.json",
)
MAP_LIBRARIES = {f"/npm/{name}": MODULES / name for name in _MAP_MODULES}


def page_files(page: str, *modules: str) -> dict[str, Path]:
    """Return the files of a page by their URL paths: its HTML, style and scripts, and files that all pages share."""
    own = (f"{page}.css", f"{page}.js", *(f"{module}.js" for module in modules))
    return {"/": WEB / page / f"{page}.html", **beside(*(f"{page}/{name}" for name in own)), **SHARED, **MAP_LIBRARIES}


LOOPBACK = "127.0.0.1"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def missing(named: Mapping[str, Path]) -> str | None:
    """Return the first of these files that does not exist, as a path in the project; None if all exist."""
    return next((str(path.relative_to(WEB.parents[1])) for path in named.values() if not path.exists()), None)


def files(named: Mapping[str, Path]) -> list[BaseRoute]:
    """Return a route for each of these files. A browser asks each time whether its copy is still current (ETag)."""
    return [Route(url, _sender(path)) for url, path in named.items()]


def _sender(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return Response("not installed\n", 404, media_type="text/plain")
        headers = {"Cache-Control": "no-cache"}
        answer = FileResponse(path, headers=headers, media_type=_TYPES[path.suffix], stat_result=found)
        if request.headers.get("if-none-match") == answer.headers["etag"]:
            return Response(status_code=304, headers={**headers, "ETag": answer.headers["etag"]})
        return answer

    return send


def event(name: str, data: object) -> str:
    """Return a server-sent event as text. JSON has no line breaks of its own, so one `data` line is enough."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def event_stream(events: AsyncIterable[str]) -> Response:
    """Return the response that sends these events for as long as the page is open."""
    return _EventStream(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


class _EventStream(StreamingResponse):
    """A stream of events, which ends with its server: the server would otherwise cancel it, and log an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (ending := scope.get(ENDING)) is not None:
            self.body_iterator = _until(ending, self.body_iterator)
        await super().__call__(scope, receive, send)


async def _until(ending: asyncio.Event, events: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Yield the events until `ending` is set."""
    iterator = aiter(events)
    ended = asyncio.ensure_future(ending.wait())
    while True:
        following = asyncio.ensure_future(anext(iterator, None))
        try:
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            line = following.result() if following.done() else None
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if line is None:
            ended.cancel()
            return
        yield line


def content_policy(*, connect: Iterable[str] = (), style_url: str | None = None) -> str:
    """Return a Content-Security-Policy. The page may talk to the origins of the URLs in `connect`.

    `style_url` is a map style with streets: its tiles, glyphs and pictures come from the style's origin.
    """
    directives = {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "worker-src": ["'self'"],
        "style-src": ["'self'"],
        "connect-src": ["'self'", *_origins(*connect, style_url)],
        "img-src": ["'self'", "data:", "blob:", *_origins(style_url)],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["default"],  # the policy in web/shared/trust.js
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in directives.items())


def _origins(*urls: str | None) -> list[str]:
    parts = [urlsplit(url or "") for url in urls]
    return [f"{each.scheme}://{each.netloc}" for each in parts if each.netloc]


def application(routes: Sequence[BaseRoute], policy: str) -> ASGIApp:
    """Return an application that serves these routes, with the headers of Rule 2.

    It answers only requests whose host is 127.0.0.1 or localhost.
    """
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False)
    return _with_headers(
        Starlette(routes=routes, middleware=[trusted]), {**_HEADERS, "Content-Security-Policy": policy}
    )


def _with_headers(app: ASGIApp, headers: Mapping[str, str]) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await app(scope, receive, send_with_headers)

    return wrapped


class _Server(uvicorn.Server):
    """A uvicorn server that runs in the caller's loop and leaves signals to the caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, port: int = 0, bind: str = LOOPBACK, *, date_header: bool = True) -> AsyncIterator[str]:
    """Serve the application during the `async with` block; yield the page's address on this machine.

    With port 0, any free port is used. `date_header` says whether `Date` is added to each answer. Raise OSError if the
    port is taken.
    """
    ending = asyncio.Event()

    async def ending_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, ENDING: ending}, receive, send)

    with socket.create_server((bind, port)) as listener:
        config = uvicorn.Config(
            ending_app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=date_header,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            ending.set()
            server.should_exit = True
            await task
