"""The checks on requests at the api listener: those before any route, and those that routes call.

    Middleware: 503 draining, 401, 429 ──> route: 403 scope, 422 query ──> body: 413, 408, 415, 400

Bodies are parsed by our own strict parser, because a framework's parser accepts NaN and duplicate keys.

The number of requests in progress is limited, and each subject (the owner of a token) may use only a part of it (rule
HD6). A request counts as soon as its token is verified. Requests without a token don't count: requests for public pages
read no body, refused requests are answered at once, and `newer_keys` limits the requests that wait for a new key.
`http_server` limits the number of connections.
"""

import asyncio
import contextlib
import functools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..alertlog import PAGE, Cursor
from ..auth.jwks_refresh import NewerKeys
from ..auth.scopes import MANAGE, PUBLISH
from ..auth.tokens import Grant, Requester, Subject, TokenVerifier
from ..clock import Clock
from ..ingest.cap import MAX_CAP_BYTES
from ..model import problems
from ..model.alert import ID_PATTERN, is_id
from ..model.errors import Malformed, trace
from ..model.problems import Problem, Violation
from ..wire.strict_json import load_json
from .context import ApiContext
from .drain import Drain
from .responses import RETRY_AFTER_S, forbid_storing, problem_answer

if TYPE_CHECKING:  # importing the XML parser takes 0.2 s and 10 MB, and many nodes receive no CAP messages
    from ..ingest.cap.sources import CapSource, CapSources

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
BODY_S = 10.0  # the time within which a whole body has to arrive
REFUSED_S = 5.0  # how long to wait before refusing a subject that already has too many requests in progress
CAP_PATH = "/v1/cap"
CAP_UNAUTHORIZED = (
    "A source's secret (CAP-Webhook-Auth: SECRET) or a valid bearer token (Authorization: Bearer <JWT>) is needed."
)
NOT_VALID_HERE = "The token is not valid here. The command `geocast token --check` says why, given the public keys."
STREAM_PATH = "/v1/stream"  # of the other listener; clients that take the wrong port ask for it here
CAP_TYPES = ("application/xml", "text/xml", "application/cap+xml")
_CHARSET = re.compile(r"""charset\s*=\s*"?([A-Za-z0-9._-]{1,40})"?\s*(;|$)""", re.IGNORECASE)
PUBLIC = frozenset(
    {"/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/asyncapi.json", "/docs", "/favicon.ico"}
)
PUBLIC_UNDER = ("/problems/", "/docs/")
CURSOR_PATTERN = f"([0-9]{{1,15}})-({ID_PATTERN})"  # ms since 1970 and an id; opaque to clients
_CURSOR = re.compile(CURSOR_PATTERN)
_LIMIT = re.compile("[1-9][0-9]{0,3}")


@dataclass(slots=True)
class Middleware:
    """Checks each request before it reaches its route, and refuses it with an error if a check fails.

    The errors are 503 during a shutdown, 401 for unknown senders, and 429 for senders with too many requests in
    progress.
    """

    app: ASGIApp
    api: ApiContext

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Answer every error with a problem document."""
        if scope["type"] != "http":
            return
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                forbid_storing(message)
            await send(message)

        self.api.requests += 1
        scope["drain"] = self.api.drain
        try:
            if scope["path"] in PUBLIC or scope["path"].startswith(PUBLIC_UNDER):
                await self.app(scope, receive, observed)
            else:
                subject = await self._subject(scope)
                scope["turn"] = functools.partial(self.api.places.starts.wait, subject)
                async with self._place(subject):
                    await self.app(scope, receive, observed)
        except Problem as refused:
            await problem_answer(self.api, refused)(scope, receive, observed)
        except asyncio.CancelledError:
            if not self.api.drain.begun:
                raise
            if not started:  # the shutdown does not wait for this request; whether it was carried out is unknown
                await problem_answer(self.api, _draining())(scope, receive, observed)
        except Exception as error:
            logger.error("a request to the api listener failed: %s", trace(error))
            if not started:
                await problem_answer(self.api, Problem(problems.INTERNAL))(scope, receive, observed)
        finally:
            self.api.requests -= 1

    @contextlib.asynccontextmanager
    async def _place(self, subject: Hashable) -> AsyncIterator[None]:
        """While the `with` block runs, count a request of `subject` as in progress.

        If `subject` (a token owner or CAP source) already has too many requests in progress, wait REFUSED_S seconds and
        raise Problem (429). Example: a publisher keeps 2,000 connections busy and sends a new request after each
        refusal. Without the delay, the refusals alone would use all of the event loop's time (rule HD6).
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self.api.places.requests.place(subject))
            except Problem:
                with contextlib.suppress(TimeoutError):
                    async with self.api.drain.waiting(REFUSED_S):
                        await asyncio.Event().wait()
                await self.api.places.starts.wait("refusals")  # at most one refusal per turn of the event loop
                raise
            yield

    async def _subject(self, scope: Scope) -> Hashable:
        """Return the subject that sends a request: the owner of a token, or a CAP source.

        Requests in progress are counted for each subject. Store the token's permissions as `grant`, or the CAP source
        as `cap_source`, in `scope`. Raise Problem: 503 if the node is shutting down, 401 if the token is not valid.
        """
        if self.api.drain.begun:
            raise _draining()
        if scope["path"] == STREAM_PATH:
            raise Problem(problems.NOT_FOUND, "The stream, a WebSocket, is at the port of --stream, not at this one.")
        if source := self._by_secret(scope):
            scope["cap_source"] = source
            return source.name
        is_cap = scope["path"] == CAP_PATH and self.api.taking is not None
        missing = CAP_UNAUTHORIZED if is_cap else ""
        return await authenticated(scope, self.api.tokens, self.api.newer_keys, self.api.clock, missing)

    def _by_secret(self, scope: Scope) -> "CapSource | None":
        """Return the CAP source whose secret the request contains, or None if it contains no such secret.

        If the request also has a token, the token decides, and the result is None (rule CP1).
        """
        headers = [(name, value) for name, value in scope["headers"] if name in (b"authorization", b"cap-webhook-auth")]
        if scope["path"] != CAP_PATH or self.api.taking is None or len(headers) != 1:
            return None
        [(name, value)] = headers
        return self.api.taking.sources.of_secret(value.decode("latin-1")) if name == b"cap-webhook-auth" else None


def bearer(scope: Scope) -> str:
    """Return the bearer token of a request (RFC 6750).

    Return an empty string if the request has no Authorization header, or more than one.
    """
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    kind, _, token = values[0].decode("latin-1").partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if kind.lower() == "bearer" else ""


async def authenticated(
    scope: Scope, tokens: TokenVerifier, newer_keys: NewerKeys | None, clock: Clock, missing: str = ""
) -> Subject:
    """Check the token of a request, store its permissions as `grant` in `scope`, and return its owner.

    Raise Problem (401) if the token is not valid; if there is none, its detail is `missing`. If the token has an
    unknown key, wait for `newer_keys` first.
    """
    token = bearer(scope)
    if newer_keys is not None and not tokens.knows_key_of(token):
        await newer_keys.waited()
    grant = tokens.check(token, clock.now(), again=True)
    if grant is None:
        if not token:
            raise unauthorized(missing)
        # Only somebody who has a token with a valid signature learns that it has expired.
        detail = "The token has expired." if tokens.is_expired(token, clock.now()) else NOT_VALID_HERE
        raise unauthorized(detail, ', error="invalid_token"')
    scope["grant"] = grant
    return grant.subject


# ---- checks that routes call ----------------------------------------------------------------------------------------


def granted(request: Request, *scopes: str) -> Grant:
    """Return the permissions of the caller's token. Raise Problem (403) if the token has none of `scopes`."""
    grant: Grant = request.scope["grant"]
    if not grant.scopes & set(scopes):
        raise Problem(problems.INSUFFICIENT_SCOPE, f"The token lacks the scope {' or '.join(scopes)}.")
    return grant


def publishing_as(request: Request, *scopes: str) -> Requester:
    """Return the sender of a request to publish.

    Raise Problem (403) if the token has none of `scopes`, or if its `sub` does not have the form of an id (rule T5).
    """
    grant = granted(request, *scopes)
    if not is_id(grant.sub):
        raise Problem(
            problems.INSUFFICIENT_SCOPE, "The token's sub can't be used as a source: it must match the grammar of id"
        )
    return Requester(grant.sub, MANAGE in grant.scopes, grant.issuer)


def source_of(request: Request, sources: "CapSources") -> "CapSource":
    """Return the CAP source that sends the request (rule CP1).

    Raise Problem (403) if the caller is not a CAP source.
    """
    found: CapSource | None = request.scope.get("cap_source")
    if found is None:
        grant = granted(request, PUBLISH)
        found = sources.named(grant.sub, grant.issuer)
    if found is None:
        detail = "The token's sub is not the name of a CAP source, or the token is from another issuer."
        raise Problem(problems.INSUFFICIENT_SCOPE, detail)
    return found


def is_dry_run(request: Request) -> bool:
    """Return whether the query asks for a dry run. Raise Problem (422) if the query contains anything else."""
    parameters = list(request.query_params.multi_items())
    match parameters:
        case []:
            return False
        case [("dry_run", ("true" | "false") as value)]:
            return value == "true"
    wrong = "the only query parameter is dry_run (true or false), given once"
    raise Problem.of([Violation(problems.INVALID_VALUE, "", wrong)])


def without_query(request: Request) -> None:
    """Raise Problem (422) if the request has a query."""
    if request.query_params:
        raise Problem.of([Violation(problems.INVALID_VALUE, "", "no query parameters are allowed here")])


def page_asked(request: Request) -> tuple[Cursor | None, int]:
    """Return which page of the live alerts a request asks for: a cursor and the maximum number of alerts (rule H14).

    The page begins after the cursor, or with the first alert if the cursor is None. Raise Problem (422) if the query is
    not valid.
    """
    parameters = list(request.query_params.multi_items())
    given = dict(parameters)
    cursor, limit = _CURSOR.fullmatch(given.get("after", "")), _LIMIT.fullmatch(given.get("limit", str(PAGE)))
    wrong = []
    if len(given) < len(parameters) or not given.keys() <= {"after", "limit"}:
        wrong.append("the only query parameters are after and limit, once each")
    if "after" in given and cursor is None:
        wrong.append("the query parameter after must be the value from a Link header")
    if limit is None or int(limit[0]) > PAGE:
        wrong.append(f"the query parameter limit must be an integer from 1 to {PAGE}")
    if wrong or limit is None:
        raise Problem.of([Violation(problems.INVALID_VALUE, "", each) for each in wrong])
    return Cursor(int(cursor[1]), cursor[2]) if cursor else None, int(limit[0])


def _draining() -> Problem:
    return Problem.later(problems.DRAINING, RETRY_AFTER_S)


def unauthorized(detail: str = "", error: str = "") -> Problem:
    """Return the problem (401) with which to answer a request without a valid token or secret.

    `error` has the further attributes of the challenge. Without a token there are none (RFC 6750, 3.1).
    """
    return Problem(problems.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="geocast"' + error})


async def body_of(request: Request, most: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Return the request's body, which must be one JSON object in strict JSON.

    Raise Problem in these cases, checked in this order: 413 (over `most` bytes), 408 (too slow), 415 (wrong media
    type), 400 (not a valid JSON object).
    """
    data = await _received(request, most)
    if _media_type(request) != "application/json":
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, "The body must be sent as application/json.")
    try:
        return load_json(data)
    except (UnicodeDecodeError, Malformed) as error:  # the reason says where parsing failed and why
        reason = str(error) if isinstance(error, Malformed) else f"invalid UTF-8 at byte {error.start + 1}"
        detail = f"{problems.MALFORMED_JSON.explanation} In this body: {reason}."
        raise Problem(problems.MALFORMED_JSON, detail) from None


async def cap_of(request: Request, take_place: Callable[[], None]) -> tuple[bytes, str | None]:
    """Return the XML body of a request, and the charset that its media type names, or None if it names none.

    `take_place` counts the request against the limit on CAP messages in progress. It is called when the body is
    complete, or as soon as the body exceeds MAX_BODY_BYTES. So a small body that never arrives does not count (rule
    HD3). Raise Problem: 413 (too large), 408 (too slow), 429 (from `take_place`), 415 (wrong media type).
    """
    data = await _received(request, MAX_CAP_BYTES, take_place)
    if _media_type(request) not in CAP_TYPES:
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE)
    charset = _CHARSET.search(request.headers["Content-Type"])
    return data, charset[1] if charset else None


def _media_type(request: Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def _received(request: Request, most: int, take_place: Callable[[], None] | None = None) -> bytes:
    """Return the whole body of a request, which may have at most `most` bytes.

    `take_place` counts the request against a limit. It is called when the body is complete, or as soon as the body
    exceeds MAX_BODY_BYTES. Raise Problem: 413 if the body is too large, 408 if it is too slow, 503 if the node shuts
    down. Errors that `take_place` raises are passed on.
    """
    drain: Drain = request.scope["drain"]
    turn: Callable[[], Awaitable[None]] | None = request.scope.get("turn")
    chunks, size = [], 0
    try:
        async with drain.waiting(BODY_S):
            if int(request.headers.get("Content-Length", "0")) > most:
                raise _too_large(most)
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > most:
                    raise _too_large(most)
                if take_place is not None and size > MAX_BODY_BYTES:
                    take_place()
                    take_place = None
    except (TimeoutError, ClientDisconnect):
        if drain.begun:
            raise _draining() from None
        if turn is not None:
            await turn()  # a subject whose thousand bodies are late at the same time must not stop the event loop
        raise Problem(problems.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_S:g} s.") from None
    if take_place is not None:
        take_place()
    if turn is not None:
        await turn()  # wait for this subject's turn: from here on the request uses the event loop's CPU time
    return b"".join(chunks)


def _too_large(most: int) -> Problem:
    return Problem(problems.TOO_LARGE, f"A body may have at most {most // 1024:,} KiB here.")
