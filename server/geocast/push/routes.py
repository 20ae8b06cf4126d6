"""The HTTP listener of `geocast push`, where devices register (docs/reference/push-rules.md).

    connection ──> `_Gate`: 503, 403 origin, 401, 429 ──> a route in this module ──> `registering`

`_Gate` does all checks before the routes, so the Starlette application behind it is only a table of routes. Bodies are
read in the same way as on the API's listener.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..api.drain import Drain
from ..api.middleware import authenticated, bearer, body_of, granted, unauthorized
from ..api.responses import RETRY_AFTER_S, application, as_problem, problem_document
from ..auth.jwks_refresh import NewerKeys
from ..auth.scopes import RECEIVE
from ..auth.tokens import TokenVerifier
from ..clock import Clock
from ..config import SHARE
from ..metrics import Metrics
from ..model import problems
from ..model.errors import StoreUnavailable, trace
from ..model.problems import Problem
from ..policy.shares import Shares
from .device_repository import OpenedDevice
from .registering import Registering

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 1024
MAX_REQUESTS = 500  # number of requests under way at once
STRANGERS = None  # stands for the sender of a request until the sender is known
PREFLIGHT_S = 600  # how long a browser may cache the answer to a preflight request
OFFER = "/v1/push"
DEVICES = "/v1/devices"
_WRONG_DOOR = "Only devices register at this port. The stream and the api of a node have ports of their own."


def requests_of(share: float) -> Shares:
    """Return an object that limits how many requests may be in progress at once.

    `share` is the fraction (0 to 1) of the limit that one subject (token owner) may use (rule HD6).
    """
    return Shares("requests under way", MAX_REQUESTS, share)


@dataclass(slots=True)
class DevicesContext:
    """The services and settings that the routes use.

    `registering` is None until the devices are loaded. `unready` returns the reasons why the process is not ready yet,
    empty if it is.
    """

    tokens: TokenVerifier
    clock: Clock
    metrics: Metrics
    origins: Collection[str]
    unready: Callable[[], list[str]]
    registering: Registering | None = None
    newer_keys: NewerKeys | None = None  # set if the keys come from a URL
    drain: Drain = field(default_factory=Drain)
    requests: Shares = field(default_factory=lambda: requests_of(SHARE))

    def taking(self) -> Registering:
        """Return the registration service. Raise Problem (503) if the devices are not loaded yet."""
        if self.registering is None:
            raise Problem.later(problems.STORE_UNAVAILABLE, RETRY_AFTER_S)
        return self.registering

    def refused(self, problem: Problem) -> Response:
        """Return a response with this problem, and count the problem by its type."""
        self.metrics.refused.labels(problem.slug).inc()
        return problem_document(problem)


def make_app(calls: DevicesContext) -> ASGIApp:
    """Return the ASGI application of the listener."""

    async def offer(_: Request) -> Response:
        return JSONResponse(calls.taking().offer())

    async def register(request: Request) -> Response:
        grant = granted(request, RECEIVE)
        device_id = request.path_params["device_id"]
        calls.taking().check(device_id)  # an invalid id is refused (404) before the body is read
        body = await body_of(request, MAX_BODY_BYTES)
        # The token may have been revoked while the body arrived (rule BA3).
        if grant.proof is None or not calls.tokens.still_valid(grant.proof):
            raise unauthorized()
        answer, is_new = await calls.taking().put(device_id, body, grant)
        return JSONResponse(answer, 201 if is_new else 200)

    async def show(request: Request) -> Response:
        device = await calls.taking().find(request.path_params["device_id"], granted(request, RECEIVE).subject)
        if device is None:
            raise Problem(problems.NOT_FOUND)
        return JSONResponse(calls.taking().shown(device))

    async def forget(request: Request) -> Response:
        await calls.taking().forget(request.path_params.get("device_id"), granted(request, RECEIVE).subject)
        return Response(status_code=204)

    async def readdress(request: Request) -> Response:
        device: OpenedDevice = request.scope["device"]
        answer = await calls.taking().readdress(device, await body_of(request, MAX_BODY_BYTES))
        if answer is None:
            raise unauthorized()
        return JSONResponse(answer)

    routes = [
        Route(OFFER, offer),
        Route(DEVICES, forget, methods=["DELETE"]),
        Route(DEVICES + "/{device_id}", register, methods=["PUT"]),
        Route(DEVICES + "/{device_id}", forget, methods=["DELETE"]),
        Route(DEVICES + "/{device_id}", show),
        Route(DEVICES + "/{device_id}/subscription", readdress, methods=["PUT"]),
    ]
    return _Gate(application(routes, calls.refused), calls)


@dataclass(slots=True)
class _Gate:
    """The checks before every route: shutdown, origin of the page, token or secret, and number of requests."""

    app: ASGIApp
    calls: DevicesContext

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["drain"] = self.calls.drain
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        may_read = origin is not None and origin in self.calls.origins
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if may_read:
                    shared = (b"access-control-allow-origin", str(origin).encode("latin-1"))
                    message["headers"] += [shared, (b"vary", b"Origin")]
            await send(message)

        try:
            with self.calls.requests.place(STRANGERS):
                answer, subject = await self._admitted(scope, headers, origin)
            with self.calls.requests.place(subject):
                await answer(scope, receive, noted)
        except (Problem, StoreUnavailable) as error:
            await self.calls.refused(as_problem(error))(scope, receive, noted)
        except asyncio.CancelledError:
            if not self.calls.drain.begun:
                raise
            if not started:  # the drain (shutdown) ended the request before it was answered
                await self.calls.refused(Problem.later(problems.DRAINING, RETRY_AFTER_S))(scope, receive, noted)
        except Exception as error:
            logger.error("a request to the device API failed: %s", trace(error))
            if not started:
                await self.calls.refused(Problem(problems.INTERNAL))(scope, receive, noted)

    async def _admitted(self, scope: Scope, headers: Headers, origin: str | None) -> tuple[ASGIApp, Hashable]:
        """Return the application that answers the request, and the subject (token owner) who has made the request.

        Each subject has a limit on its requests in progress (rule HD6). Raise Problem if the request is refused, and
        StoreUnavailable if the device store can't be used.
        """
        if self.calls.drain.begun:
            raise Problem.later(problems.DRAINING, RETRY_AFTER_S)
        if not f"{scope['path']}/".startswith((f"{OFFER}/", f"{DEVICES}/")):
            raise Problem(problems.NOT_FOUND, _WRONG_DOOR)
        if scope["query_string"]:
            raise Problem(problems.BAD_REQUEST, "Nothing here takes a query.")
        if origin is not None and origin not in self.calls.origins:
            raise Problem(problems.INSUFFICIENT_SCOPE, "Pages of this origin may not register devices (--origins).")
        if scope["method"] == "OPTIONS" and origin is not None and "access-control-request-method" in headers:
            return _preflight(), STRANGERS
        return self.app, STRANGERS if scope["path"] == OFFER else await self._subject(scope)

    async def _subject(self, scope: Scope) -> Hashable:
        """Check the token or the device's secret, store the result in `scope`, and return the subject (owner).

        Raise Problem (401) if the check fails, and StoreUnavailable if the device store can't be used.
        """
        calls = self.calls
        device_id, _, rest = scope["path"].removeprefix(f"{DEVICES}/").partition("/")
        if rest == "subscription":
            device = scope["device"] = await calls.taking().knowing(device_id, bearer(scope))
            if device is None:
                raise unauthorized()
            return device.stored.device
        return await authenticated(scope, calls.tokens, calls.newer_keys, calls.clock)


def _preflight() -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, PUT, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        },
    )
