"""The HTTP service for a page for staff: its files, sign-in, a stream of events for each open page, and decisions.

GET  /api/events     `all` first, then the changes; `tick` keeps the stream alive
POST …               a decision; 400, 401, 403, 413: refused by `sign_in` or the service; 409: somebody else was first;
                     422: not allowed, with the reasons in `troubles`
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from client_demo.web.server import event, event_stream, files

from .changes import OpenPages
from .decisions import Conflict, NotAllowed
from .sign_in import Json, SignIn, error_response, read_body

# A function that carries out a decision: (request, name of the person, JSON object that was sent) -> response.
Decide = Callable[[Request, str, Json], Awaitable[Response]]


class StaffService(ABC):
    """The routes that the review desk and the dispatch page share.

    `labels` are fields that are sent to the page, which shows them unchanged; `clock` returns the time in ms.
    """

    def __init__(self, sign_in: SignIn, pages: OpenPages, labels: Mapping[str, Any], clock: Callable[[], int]) -> None:
        self._sign_in, self._pages, self._labels, self._clock = sign_in, pages, labels, clock

    @abstractmethod
    def all_for(self, name: str) -> Json:
        """Return everything that the page shows to this person."""

    @abstractmethod
    def news_for(self, name: str, ids: set[str]) -> Iterable[tuple[str, Json]]:
        """Return the events (name and data) that tell this person's page that these items have changed."""

    def routes_of(self, page: Mapping[str, Path], decisions: Mapping[str, Decide]) -> list[BaseRoute]:
        """Return all routes of a page for staff.

        `page` maps paths to the files of the page, and `decisions` maps paths to the functions that handle POST
        requests.
        """
        return [
            *files(page),
            *self._sign_in.routes(),
            Route("/api/events", self._events),
            *(Route(path, self._deciding(decide), methods=["POST"]) for path, decide in decisions.items()),
        ]

    async def _events(self, request: Request) -> Response:
        name = self._sign_in.name_of(request)
        return _not_signed_in() if name is None else event_stream(self._stream(name))

    async def _stream(self, name: str) -> AsyncIterator[str]:
        with self._pages.joined() as changes:
            yield event("all", self.all_for(name))
            while True:
                ids = await changes.next()
                for kind, data in self.news_for(name, ids) if ids else [("tick", {"now": self._clock()})]:
                    yield event(kind, data)

    def _deciding(self, decide: Decide) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            name = self._sign_in.name_of(request)
            if name is None:
                return _not_signed_in()
            sent = await read_body(request)
            if isinstance(sent, Response):
                return sent
            try:
                return await decide(request, name, sent)
            except ValueError as error:
                return error_response(400, str(error))
            except (Conflict, NotAllowed) as error:
                return refused(error)

        return endpoint


def refused(error: Conflict | NotAllowed, **members: Any) -> Response:
    """Return the response to a decision that is refused. It contains the reasons, and these further fields."""
    if isinstance(error, Conflict):
        return JSONResponse({"detail": str(error), **members}, 409)
    return JSONResponse({"troubles": [trouble.to_map() for trouble in error.troubles], **members}, 422)


def require_object(sent: Json, name: str) -> Json:
    """Return the object in this field of a request. Raise ValueError if the field is not an object."""
    value = sent.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: an object is expected")
    return value


def require_integer(sent: Json, name: str) -> int:
    """Return the integer in this field of a request. Raise ValueError if the field is not an integer."""
    value = sent.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}: a number is expected")
    return value


def _not_signed_in() -> Response:
    return error_response(401, "Sign in first.")
