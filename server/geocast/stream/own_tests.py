"""Own tests: test alerts that subscribers ask for, to see whether alerts reach their own device (rules TR1 to TR8).

An *own test* is an alert that a process makes for one session or push device, and sends to it alone. This module makes
own tests, and limits how many a subject may ask for. It does no I/O, and the time is passed in.

The rules are in docs/protocol.md, "Own tests". This list says which code implements them:

TR1  how a session asks: `session`; how a push device asks: `push/registering`
TR2  the content of an own test: this module, with the table `[test]` of the policy (`policy/own_test`)
TR3  an own test is sent to nobody else, and to the recipient whatever its filter and its scopes are: `hub`
TR4  an own test is in no log, feed or count, and is never revised or cancelled: `ingest/publish` refuses its id
TR5  one own test in an hour for each subject, counted per process: this module
TR6  a session or device without a place is refused: `session`, `push/registering`
TR7  a client lists an own test in `holding` like any alert, and a node treats it as an unknown id: `live_alerts`
TR8  how an own test is pushed: `push/own_tests`
"""

import math
from collections.abc import Callable, Mapping

from ..auth.tokens import Subject
from ..clock import Now
from ..geometry.sphere import publish_circle
from ..matching.place_index import Place
from ..model.alert import OWN_TEST_PREFIX, Alert, Approval, Circle, Revision
from ..policy import Policy, load
from ..policy.publishers.bounds import Rate
from ..policy.publishers.rates import Rates

LIFE_MS = 300_000
PER_HOUR = 1  # own tests of one subject
ALL_PER_HOUR = 10_000  # own tests of all subjects together, which bounds the memory for the counts
RATES, ALL_RATES = (Rate(PER_HOUR, 3600),), (Rate(ALL_PER_HOUR, 3600),)
WANTED = 0  # marks a key in a `holding` that processes pass on (`with_request`); clients list revisions from 1

_SOURCE = "geocast"


class OwnTests:
    """Makes own tests according to the policy, and counts them by subject (see `hub.OwnTestMaker`)."""

    def __init__(self, policy: Callable[[], Policy] = lambda: load(None)) -> None:
        """Create the object. `policy` returns the policy that is in force, whose `[test]` has the texts.

        By default it is the built-in one.
        """
        self._policy = policy
        self._rates = Rates()

    def wait_s(self, subject: Subject | None, now: Now) -> int:
        at = now.monotonic
        if subject is not None and (wait_s := self._rates.take(subject, RATES, at)):
            return math.ceil(wait_s)
        if wait_s := self._rates.take("all", ALL_RATES, at):
            self.give_back(subject, at)
            return math.ceil(wait_s)
        return 0

    def give_back(self, subject: Subject | None, taken_s: float) -> None:
        """Do not count a test that `wait_s` has counted at the monotonic time `taken_s`, because it was not made."""
        self._rates.give_back(subject, taken_s)

    def alert(self, key: str, place: Place, now: Now) -> Revision:
        policy = self._policy()
        text = policy.test
        name = text.category or next(iter(policy.categories))
        category = policy.categories[name]
        lat, lng, reach_m = place
        circle = publish_circle(lat, lng, category.min_radius_m + reach_m, category.location_resolution)
        alert = Alert(
            id=OWN_TEST_PREFIX + key,
            category=name,
            headline=text.headline,
            description=text.description,
            severity="severe",
            status="test",
            occurred_at=now.wall_ms,
            expires_at=now.wall_ms + LIFE_MS,
            area=(Circle(*circle),),
            approval=Approval(_SOURCE, now.wall_ms),
        )
        return Revision(alert, 1, _SOURCE, now.wall_ms, category.terms())


def with_request(holding: Mapping[str, int], key: str | None) -> Mapping[str, int]:
    """Return the `holding` of a push device with its request for an own test, if it has made one.

    The process that receives a registration passes the result on to the process that has the device (rule WPN2). A
    process of an earlier release treats the request as an unknown alert.
    """
    return holding if key is None else {**holding, OWN_TEST_PREFIX + key: WANTED}


def split_request(holding: Mapping[str, int]) -> tuple[Mapping[str, int], str | None]:
    """Return the alerts that a device has, and the key of the own test that it has asked for or None.

    `holding` is a result of `with_request`.
    """
    asked = next((e for e, revision in holding.items() if revision == WANTED and e.startswith(OWN_TEST_PREFIX)), None)
    if asked is None:
        return holding, None
    return {each: revision for each, revision in holding.items() if each != asked}, asked.removeprefix(OWN_TEST_PREFIX)
