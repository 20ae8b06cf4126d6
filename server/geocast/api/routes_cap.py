"""The route `POST /v1/cap`, which accepts one CAP message in the form in which its issuer sends it (cap-rules.md)."""

import contextlib
import logging
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..ingest.cap.decision import CHANGES, OUTCOMES
from ..ingest.cap.service import CapIngest, CapOutcome
from ..model.alert import Cancel, Entry
from ..model.errors import LogUnavailable
from ..model.problems import Problem
from .answers import CapOut, CapReason, CapWord
from .context import ApiContext
from .middleware import CAP_PATH, cap_of, is_dry_run, source_of
from .responses import accepted, preview

logger = logging.getLogger(__name__)

MAX_NAMED = 10  # how many violations one log message lists
REFUSED, FAILED = "refused", "failed"  # the outcomes of messages that were not accepted; OUTCOMES has the others


def cap_route(api: ApiContext) -> Route:
    """Return the route that accepts CAP messages (POST /v1/cap)."""
    for name in _cap_ingest(api).sources.names:
        for outcome in (*OUTCOMES, REFUSED, FAILED):
            api.metrics.cap_messages.labels(name, outcome)  # creates the series at 0, as for the other counters

    async def cap(request: Request) -> Response:
        taking = _cap_ingest(api)
        source, dry_run = source_of(request, taking.sources), is_dry_run(request)
        outcome = FAILED
        try:
            with contextlib.ExitStack() as held:
                body, charset = await cap_of(
                    request, lambda: held.enter_context(api.places.messages.place(source.name))
                )
                answer = await taking.take(body, charset, source, dry_run=dry_run)
            outcome = answer.outcome
        except Problem as problem:
            outcome = REFUSED
            logger.warning("cap: refused the message from source %s: %s", source.name, _violations_in_words(problem))
            raise
        except LogUnavailable as error:
            logger.warning(
                "cap: unknown whether the message from source %s was stored (its sender has to repeat it): %s",
                source.name,
                error,
            )
            raise
        finally:
            if not dry_run:
                api.metrics.cap_messages.labels(source.name, outcome).inc()
        for entry in answer.stored:
            _count(api, entry)
        logger.info(
            "cap: processed the message from source %s%s: %s",
            source.name,
            " (dry run)" if dry_run else "",
            _in_words(answer),
        )
        created = answer.outcome in CHANGES and not dry_run
        return JSONResponse(_body(answer, dry_run=dry_run), 201 if created else 200)

    return Route(CAP_PATH, cap, methods=["POST"])


def _cap_ingest(api: ApiContext) -> CapIngest:
    assert api.taking is not None, "the route exists only on nodes that accept CAP messages"
    return api.taking


def _count(api: ApiContext, entry: Entry) -> None:
    if not isinstance(entry, Cancel):
        api.metrics.accepted.labels("alert" if entry.revision == 1 else "revision").inc()
    elif not entry.is_tombstone:
        api.metrics.accepted.labels("cancel").inc()


def _body(answer: CapOutcome, *, dry_run: bool) -> CapOut:
    body: CapOut = {
        "outcome": cast(CapWord, answer.outcome),
        "alerts": [preview(each) if dry_run else accepted(each) for each in answer.alerts],
        "cancelled": [{"id": each.id, "revision": each.revision} for each in answer.cancelled],
        "notes": sorted(answer.notes),
    }
    if answer.why:
        body["why"] = cast(CapReason, answer.why)
    if answer.areas_left_out:
        body["areas_left_out"] = answer.areas_left_out
    return body


# ---- the texts of log messages -------------------------------------------------------------------------------------


def _in_words(answer: CapOutcome) -> str:
    """Return one line that summarizes the result of a CAP message.

    The line consists of fixed words, numbers and ids, without any text from the message.
    """
    lists = {
        "alerts": [f"{each.id}/{each.revision}" for each in answer.alerts],
        "cancelled": [each.id for each in answer.cancelled],
        "notes": sorted(answer.notes),
    }
    outcome = answer.outcome + (f" ({answer.why})" if answer.why else "")
    return " ".join([outcome, *(f"{name}={','.join(listed)}" for name, listed in lists.items() if listed)])


def _violations_in_words(problem: Problem) -> str:
    """Return the slugs (short names) of the violations in a message, and where each is in the message (rule HD14).

    At most MAX_NAMED are named, followed by the number of the others. If there are none, return the problem's slug.
    """
    where = [f"{each.slug} at {each.pointer}" for each in problem.violations[:MAX_NAMED]]
    more = problem.total - len(where)
    return ", ".join([*where, *([f"and {more} more"] if more else [])]) or problem.slug
