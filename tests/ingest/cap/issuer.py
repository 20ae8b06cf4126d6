"""Issuers of warnings: written messages of CAP, real ones with their times moved, and a harness that takes them.

Purpose: to see the outcomes of messages, one after another. Lies: the clock stands still, and the log is in memory.
"""

import asyncio
import datetime as dt
import re
from pathlib import Path

from support.fakes import NOON_MS, FakeClock

from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.ingest.cap import ids
from geocast.ingest.cap import message as cap_message
from geocast.ingest.cap.service import CapIngest
from geocast.ingest.cap.sources import CapSource, CapSources
from geocast.ingest.cap.zones import NO_ZONES
from geocast.model.alert import Cancel
from geocast.model.problems import Problem
from geocast.model.times import format_time

CAP = "urn:oasis:names:tc:emergency:cap:1.2"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
RING = "32.7,-96.8 32.7,-96.7 32.8,-96.7 32.8,-96.8 32.7,-96.8"
OTHER_RING = "40.7,-96.8 40.7,-96.7 40.8,-96.7 40.8,-96.8 40.7,-96.8"
SENDER = "met@example.org"
ANYBODY = CapSource("met", "the duty forecaster", frozenset({"*"}), None, None)
PUBLIC_WARNING = policy.load(Path("builtin:public-warning"))

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


def time(minutes):
    """Return a CAP time this many minutes after noon."""
    return format_time(NOON_MS + int(minutes * MINUTE_MS))[:19] + "-00:00"


def element(name, content):
    """Return an XML element, or several with one name. For None return an empty text."""
    if isinstance(content, list):
        return "".join(element(name, each) for each in content)
    return "" if content is None else f"<{name}>{content}</{name}>"


def an_area(**fields):
    """Return an area with a ring, unless another shape is given."""
    shapes = {} if {"circle", "polygon", "geocode"} & fields.keys() else {"polygon": RING}
    return "".join(element(name, text) for name, text in ({"areaDesc": "The river"} | shapes | fields).items())


def code(name, value):
    """Return the content of an `eventCode` or a `geocode`."""
    return f"<valueName>{name}</valueName><value>{value}</value>"


def an_info(*areas, **fields):
    """Return an info about a flood that lasts until one o'clock, with these changes."""
    known = {
        "language": "en-US",
        "category": "Met",
        "event": "Flood",
        "urgency": "Immediate",
        "severity": "Severe",
        "certainty": "Observed",
        "expires": time(60),
    }
    body = "".join(element(name, text) for name, text in (known | fields).items())
    return body + "".join(element("area", area) for area in areas or [an_area()])


def a_message(identifier, minutes=0, refers=(), *infos, kind=None, **fields):
    """Return a message sent this many minutes after noon. `refers`: identifiers, or (sender, identifier)."""
    named = [each if isinstance(each, tuple) else (SENDER, each) for each in refers]
    known = {
        "identifier": identifier,
        "sender": SENDER,
        "sent": time(minutes),
        "status": "Actual",
        "msgType": kind or ("Update" if refers else "Alert"),
        "scope": "Public",
        "references": " ".join(f"{sender},{name},{time(-600)}" for sender, name in named) or None,
    }
    body = "".join(element(name, text) for name, text in (known | fields).items())
    said = infos or ([] if kind == "Cancel" else [an_info()])
    return f'<alert xmlns="{CAP}">{body}{"".join(element("info", info) for info in said)}</alert>'.encode()


def a_cancel(identifier, minutes, refers, *infos, **fields):
    """Return a message that cancels others."""
    return a_message(identifier, minutes, refers, *infos, kind="Cancel", **fields)


def moved(body, sent_ms):
    """Return a real message with all its times moved, so that it was sent at this time.

    Offsets and spelling stay the same.
    """
    was = cap_message.read(body, assume_offset="+00:00").sent
    by = dt.timedelta(seconds=(sent_ms - was) // 1000)

    def later(found):
        return (dt.datetime.fromisoformat(found[1].decode()) + by).strftime("%Y-%m-%dT%H:%M:%S").encode()

    return _TIME.sub(later, body)


def id_of(identifier, sender=SENDER):
    """Return the id of the alert that a message with this name gets."""
    return ids.base("met", sender, identifier)


def named(headline, **fields):
    """Return an info with this headline."""
    return an_info(headline=headline, **fields)


def two_blocks(first="one", second="two", **fields):
    """Return two infos about different places."""
    return named(first, **fields), an_info(an_area(polygon=OTHER_RING), headline=second, **fields)


class CapIngestHarness:
    """The intake of messages, at twenty past noon. `taken` returns the outcome of a message, `live` the live alerts."""

    def __init__(self, log=None, clock=None, source=ANYBODY, in_force=PUBLIC_WARNING, zones=NO_ZONES):
        self.clock = clock or FakeClock(NOON_MS + 20 * MINUTE_MS)
        self.log = log or MemoryLog()
        self.source = source
        self.taking = CapIngest(self.log, in_force, CapSources({source.name: source}), self.clock, zones=zones)

    def taken(self, body, charset=None, **how):
        """Return the outcome of a message."""
        return asyncio.run(self.taking.take(body, charset, self.source, **how))

    def outcomes(self, *bodies):
        """Return the outcome of each message."""

        async def taken():
            return [(await self.taking.take(body, None, self.source)).outcome for body in bodies]

        return asyncio.run(taken())

    def refused(self, body, **how):
        """Return the slug and the pointer of each broken rule, or the slug alone."""
        try:
            answer = self.taken(body, **how)
        except Problem as problem:
            return [(each.slug, each.pointer) for each in problem.violations] or problem.slug
        raise AssertionError(f"it was taken: {answer.outcome}")

    def live(self):
        """Return the headlines of the live alerts, by id."""
        page = asyncio.run(self.log.live(self.clock.wall_ms))
        return {revision.id: revision.alert.headline for revision in page.revisions}

    def history(self, alert_id):
        """Return all entries of an id."""
        return list(asyncio.run(self.log.history(alert_id)))

    def tombstones(self):
        """Return the ids of tombstones (cancels without an alert), each with the id of the alert that replaced it."""
        entries = [entry for _, entry in self.log._entries]
        return {entry.id: entry.into for entry in entries if isinstance(entry, Cancel) and entry.is_tombstone}
