"""Functions that build the api listener's answers (protocol, section 4, "What an answer means")."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from .. import failpoints
from ..alertlog import Counts, Page
from ..ingest.publish import PublishOutcome
from ..model import problems
from ..model.alert import Cancel, Entry, OtherKind, Revision
from ..model.errors import LogUnavailable, StoreUnavailable
from ..model.problems import Problem
from ..model.times import format_time
from ..policy.confirmation import covered_km2
from ..wire.frames import alert_map
from ..wire.output import area_out
from .answers import AcceptedOut, CancelledOut, DeliveryOut, StateWord
from .context import ApiContext

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
SLICE_BYTES = 64 * 1024
RENDERED = 100  # how many alerts of a page are rendered before other tasks may run
# Delivery counts below this number are shown as 0. To find out whether somebody is inside an area, a publisher would
# have to place almost this number of its own sessions there.
LEAST_COUNT = 20


def accepted(entry: Revision) -> AcceptedOut:
    """Return the JSON body of the answer to a request whose revision is stored in the log."""
    return {
        "id": entry.id,
        "revision": entry.revision,
        "issued_at": format_time(entry.issued_at),
        "expires_at": format_time(entry.alert.expires_at),
        "area": area_out(entry.alert.area),
    }


def preview(entry: Revision) -> AcceptedOut:
    """Return the JSON body of the answer to a dry run, for a revision.

    `entry` is the revision that the request would have stored if it had not been a dry run.
    """
    return {"id": entry.id, "expires_at": format_time(entry.ends_at), "area": area_out(entry.alert.area)}


def answer_of(entry: Entry) -> AcceptedOut | CancelledOut:
    """Return the JSON body of the answer to a request whose entry (a revision or a cancel) is stored in the log."""
    if isinstance(entry, Cancel):
        return {"id": entry.id, "revision": entry.revision, "cancelled_at": format_time(entry.cancelled_at)}
    return accepted(entry)


def dry(outcome: PublishOutcome[Any]) -> Response:
    """Return a response (200) with the result of a dry run.

    If the policy requires approvals, the body contains the form (`form`), which is the text that reviewers have to
    sign.
    """
    entry: Entry = outcome.entry
    answer: AcceptedOut | CancelledOut
    if isinstance(entry, Cancel):
        answer = {"id": entry.id}
    else:
        answer = {**preview(entry), "reach": {"area_km2": covered_km2(entry.alert.area)}}
    if outcome.form is not None:
        answer["form"] = outcome.form
    answer["approvals"] = outcome.approvals
    return JSONResponse(answer)


def written(api: ApiContext, outcome: PublishOutcome[Any], kind: str) -> Response:
    """Return the response to a request that stores an alert's entry.

    The status is 201 for a new entry, and 200 if the request repeats an earlier one. New entries are counted in the
    metrics under `kind`.
    """
    if not outcome.created:
        return JSONResponse(answer_of(outcome.entry))
    api.metrics.accepted.labels(kind).inc()
    for kid in api.publishing.break_glass(outcome.entry):
        api.metrics.break_glass.inc()
        logger.warning("a new entry (%s) was approved with the emergency key %s (break glass)", kind, kid)
    return stored(answer_of(outcome.entry), f"/v1/alerts/{outcome.entry.id}")


def stored(answer: Mapping[str, Any], where: str) -> Response:
    """Return a response (201) for an entry that is on stable storage. `where` is the path at which it can be read."""
    return _Accepted(answer, 201, {"Location": where})


class _Accepted(JSONResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        failpoints.hit("after-201")


async def listed(page: Page, limit: int) -> Response:
    """Return a response (200) with a page of the live alerts, and a link to the next page if there is one (rule H14).

    Each time that RENDERED alerts have been converted to JSON, other tasks can run.
    """
    pieces = []
    for start in range(0, len(page.revisions), RENDERED):
        maps = [alert_map(revision) for revision in page.revisions[start : start + RENDERED]]
        pieces.append(json.dumps(maps, ensure_ascii=False, separators=(",", ":"))[1:-1])
        await asyncio.sleep(0)
    headers = {}
    if page.after is not None:
        query = urlencode({"after": f"{page.after.ends_at}-{page.after.id}", "limit": limit})
        headers["Link"] = f'</v1/alerts?{query}>; rel="next"'
    return Response(f'{{"alerts":[{",".join(pieces)}]}}', headers=headers, media_type="application/json")


def state(history: Sequence[Entry | OtherKind], now_ms: int) -> StateWord:
    """Return the state of an alert whose entries in the log are `history`.

    A cancelled alert never becomes `expired`.
    """
    if any(isinstance(entry, Cancel) for entry in history):
        return "cancelled"
    last = [entry for entry in history if isinstance(entry, Revision)][-1]
    return "live" if now_ms < last.ends_at else "expired"


def exact(counts: Counts) -> DeliveryOut:
    """Return the JSON object with an alert's exact delivery counts (rule H12)."""
    return {"sent": counts.sent, "acked": counts.acked, "pushed": counts.pushed}


def rounded(counts: Counts, revisions: int) -> DeliveryOut:
    """Return the JSON object with an alert's delivery counts, rounded down (rule H11).

    The rounded counts reveal nothing about a single person, who may have been sent each of the alert's `revisions`.
    """
    sent, acked, pushed = (_down(n, LEAST_COUNT * revisions) for n in (counts.sent, counts.acked, counts.pushed))
    return {"sent": sent, "acked": acked, "pushed": pushed, "rounded": True}


def _down(number: int, least: int) -> int:
    """Round a count down to its two leading digits, or to a multiple of 10 if the count is below 1,000.

    Return 0 if the count is below `least`. Examples: 1,987 becomes 1,900, and 45 becomes 40.
    """
    unit = max(10, 10 ** (len(str(number)) - 2))
    return number // unit * unit if number >= least else 0


def as_problem(error: Exception) -> Problem:
    """Return the problem with which to answer a request, after it has raised `error`.

    If the error is unexpected, the problem's type is `internal`.
    """
    match error:
        case Problem():
            return error
        case LogUnavailable():
            return Problem.later(problems.LOG_UNAVAILABLE, RETRY_AFTER_S)
        case StoreUnavailable():
            return Problem.later(problems.STORE_UNAVAILABLE, RETRY_AFTER_S)
        case HTTPException(status_code=405):
            return Problem(problems.METHOD_NOT_ALLOWED)
        case HTTPException(status_code=404):
            return Problem(problems.NOT_FOUND)
    return Problem(problems.INTERNAL)


def application(routes: Sequence[Route], refused: Callable[[Problem], Response]) -> Starlette:
    """Return an application with these routes, which answers each error with what `refused` makes of its problem.

    It never redirects, because a redirect would lead to the `Host` in the request.
    """

    async def problem(request: Request, error: Exception) -> Response:
        found = as_problem(error)
        if found.type is problems.METHOD_NOT_ALLOWED:
            found.headers["Allow"] = _allowed(routes, request.url.path)
        return refused(found)

    kinds = (Problem, LogUnavailable, StoreUnavailable, HTTPException, Exception)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(kinds, problem))
    app.router.redirect_slashes = False
    return app


def _allowed(routes: Sequence[Route], path: str) -> str:
    """Return the methods that a path supports, as the value of the header `Allow` (RFC 9110, 15.5.6).

    Starlette would list only the methods of the first route that matches the path.
    """
    found = [route.methods or () for route in routes if route.path_regex.match(path)]
    return ", ".join(sorted({method for methods in found for method in methods}))


def problem_answer(api: ApiContext, problem: Problem) -> Response:
    """Return a response with this problem, and count the problem by its type."""
    api.metrics.refused.labels(problem.slug).inc()
    for kind in {each.members["kind"] for each in problem.violations if "kind" in each.members}:
        api.metrics.held.labels(kind).inc()
    return problem_document(problem)


def problem_document(problem: Problem) -> Response:
    """Return a response with this problem as its body (RFC 9457), without counting the problem."""
    return JSONResponse(problem.body(), problem.status, problem.headers, "application/problem+json")


def unless_known(request: Request, content: bytes, headers: dict[str, str], media_type: str) -> Response:
    """Return a response with status 200 and the content, or 304 if the client already has it (RFC 9110, 13.1.2).

    `headers` must have the `ETag` of the content.
    """
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if headers["ETag"] in tags or tags == ["*"]:
        return Response(status_code=304, headers=headers)
    return in_slices(content, headers, media_type)


def etag(content: bytes) -> str:
    """Return the strong ETag of some content, which is made from its hash."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def forbid_storing(start: Message) -> None:
    """Tell caches not to store an answer, unless its headers already say what caches may do (RFC 9111, 4.2.2).

    Otherwise a cache may invent how long an answer is fresh. `start` is the ASGI message with the headers.
    """
    if not any(name.lower() == b"cache-control" for name, _ in start["headers"]):
        start["headers"].append((b"cache-control", b"no-store"))


def in_slices(content: bytes, headers: Mapping[str, str], media_type: str) -> Response:
    """Return a response (200) that sends the content in slices.

    If a client reads slowly, only one slice waits in memory.
    """

    async def slices() -> AsyncIterator[bytes]:
        for start in range(0, len(content), SLICE_BYTES):
            yield content[start : start + SLICE_BYTES]

    return StreamingResponse(slices(), 200, {**headers, "Content-Length": str(len(content))}, media_type)
