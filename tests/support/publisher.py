"""A harness for tests of the answers to publishers, with its own log and clock."""

import asyncio

from support.fakes import DALLAS, NOON_MS, FakeClock, alert_request

from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import Requester
from geocast.ingest.publish import Publishing
from geocast.model.errors import LogUnavailable
from geocast.model.problems import Problem
from geocast.model.times import format_time
from geocast.policy import Policy

DESK, OTHER, MANAGER = Requester("desk"), Requester("other"), Requester("boss", manages=True)
APPROVAL = {"reviewer": "desk-7", "approved_at": format_time(NOON_MS)}
BUILT_IN = policy.load(None)
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}


def a_policy(**robbery):
    """Return a policy with two categories: robbery with these limits, and arson with two hours and a coarser cell."""
    arson = {"title": "Arson", "max_age_s": 7200, "location_resolution": 7}
    return Policy.model_validate(
        {"name": "p", "categories": {"robbery": {"title": "Robbery"} | robbery, "arson": arson}}
    )


class BrokenLog(MemoryLog):
    """A log that is unavailable. Unlike a real log, it never stores an entry whose append fails."""

    async def history(self, alert_id):
        raise LogUnavailable("out of reach")

    async def append(self, entry):
        raise LogUnavailable("out of reach")


class PublisherHarness:
    """`Publishing` with all its dependencies.

    Each request runs to its end and returns the result of `answer_of`. In the changes to a request's body, `...`
    removes a member.
    """

    def __init__(self, log=None, in_force=BUILT_IN, **more):
        self.clock = FakeClock()
        self.log = log or MemoryLog()
        self.appended = 0
        self.use(in_force, **more)

    def use(self, in_force, **more):
        """Use another policy; `more` are further arguments of `Publishing`."""
        self.publishing = Publishing(self.log, in_force, self.clock, self._count, **more)

    def _count(self, _entry):
        self.appended += 1

    def publish(self, who=DESK, *, dry_run=False, **changes):
        """Send `POST /v1/alerts`."""
        return self.answer(self.publishing.publish(alert_request(**changes), who, dry_run=dry_run))

    def revise(self, number=2, who=DESK, alert_id="a-1", *, dry_run=False, **changes):
        """Send `POST /v1/alerts/{id}/revisions`."""
        body = alert_request(**{"headline": "Robbery, again"} | changes | {"id": ..., "revision": number})
        return self.answer(self.publishing.revise(alert_id, body, who, dry_run=dry_run))

    def cancel(self, number=2, who=DESK, alert_id="a-1", *, dry_run=False, **changes):
        """Send `POST /v1/alerts/{id}/cancel`."""
        body = {"revision": number, "reason": "over", "approval": APPROVAL} | changes
        body = {name: value for name, value in body.items() if value is not ...}
        return self.answer(self.publishing.cancel(alert_id, body, who, dry_run=dry_run))

    def answer(self, call):
        """Run a call of `publishing` to its end and return its answer."""
        return asyncio.run(answer_of(call))

    def history(self, alert_id="a-1"):
        """Return the entries of an alert in the log."""
        return asyncio.run(self.log.history(alert_id))


async def answer_of(call):
    """Return (200 or 201, entry), or (status, problem) if the request was refused."""
    try:
        outcome = await call
    except Problem as problem:
        return problem.status, problem
    return 201 if outcome.created else 200, outcome.entry


def slugs(answer):
    """Return the status, the top-level slug, and the (slug, pointer) of each violation of a refusal."""
    status, problem = answer
    assert isinstance(problem, Problem)
    assert not problem.violations or problem.slug == problem.violations[0].slug
    return status, problem.slug, [(v.slug, v.pointer) for v in problem.violations]


def refused(answer):
    """Return the status and the top-level slug of a refusal."""
    return slugs(answer)[:2]
