"""The demo's call for help, from a dispatch record to the arrival of the crew, and the facts by which it is judged."""

import asyncio
import json
import struct
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client_demo.desk.feed_format import Format
from client_demo.desk.feeds import feed_text, read_records
from client_demo.dispatch.records import Record, calls_for_help
from client_demo.python.dispatcher import Dispatcher
from client_demo.python.geo import offset
from client_demo.python.times import format_time, wall_ms

from .call_verdict import Called
from .population import Point
from .processes import CrowdProcess, all_do

CATEGORY = "cardiac_arrest"
QUALS = frozenset({"medic"})  # the `residence_quals` of policy.toml
HAPPENED_MS = 30_000  # the time from the arrest to the opening of the call
FULL_S, THERE_S, POLL_S = 8.0, 1.5, 0.2
DOOR_M = (11.7, -7.3)  # metres from the record's place to the door: north, east
ACCESS = "Demo door code 80417, second floor."
AEDS_M = ((180.0, 90.0), (-240.0, 60.0), (70.0, -310.0))  # metres from the door: north, east


def arrests_of(path: Path, kind: Format | None) -> list[Record]:
    """Return those records of a feed that are not drills and from which a call for help can be opened, newest first."""
    found = calls_for_help(read_records(path.name, feed_text(path), kind), [CATEGORY])
    return [record for record in found if not record.obstacle and record.status is None]


def where(record: Record) -> Point:
    """Return the latitude and longitude of a record."""
    assert record.lat is not None
    assert record.lng is not None
    return record.lat, record.lng


def write_aeds(path: Path, arrests: Sequence[Record]) -> Path:
    """Write a GeoJSON file with invented defibrillators around the places of these records, and return its path."""
    features: list[dict[str, Any]] = []
    for record in arrests:
        for number, away in enumerate(AEDS_M):
            lat, lng = offset(*where(record), *away)
            tags = {"emergency": "defibrillator", "access": "yes", "opening_hours": "24/7"}
            told = {"defibrillator:location": f"Demo hall {number + 1}", "defibrillator:code": f"25{len(features):02}"}
            point = {"type": "Point", "coordinates": [lng, lat]}
            features.append(
                {"type": "Feature", "id": f"demo/{len(features)}", "geometry": point, "properties": tags | told}
            )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def needles(place: dict[str, Any]) -> list[str]:
    """Return the secret parts of a call's place, as hex: bytes that only a `task` message may contain.

    They are the address, how to get in, and the coordinates as JSON and as MessagePack write them.
    """
    texts = [place["address"], place["access"], repr(place["lat"]), repr(place["lng"])]
    return [text.encode().hex() for text in texts] + [struct.pack(">d", place[name]).hex() for name in ("lat", "lng")]


class Call:
    """A call for help that is opened on a running node, while a crowd of simulated phones is connected."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        crowd: Sequence[CrowdProcess],
        record: Record,
        full_s: float = FULL_S,
        there_s: float = THERE_S,
    ) -> None:
        """Prepare a call from a record.

        `full_s` is the longest time, in seconds, to wait until the call has enough responders; `there_s` is the longest
        time to wait after that until all of them have arrived.
        """
        self._dispatcher, self._crowd = dispatcher, crowd
        self._full_s, self._there_s = full_s, there_s
        lat, lng = offset(*where(record), *DOOR_M)
        self._place = {
            "lat": lat,
            "lng": lng,
            "kind": "residence",
            "address": record.address or "Demo Road 1",
            "access": ACCESS,
        }
        self._id = uuid.uuid4().hex
        self.state: dict[str, Any] = {}
        self.missing, self.frames = 0, 0  # numbers of phones without a standdown, and of searched frames

    async def go(self) -> Called:
        """Open the call, wait until enough responders have accepted and arrived, and end it.

        Return the facts that the verdict needs.
        """
        await all_do(self._crowd, "search", needles=needles(self._place))
        body = {
            "id": self._id,
            "category": CATEGORY,
            "headline": "Adult, not breathing. Somebody does compressions.",
            "status": "actual",
            "occurred_at": format_time(wall_ms() - HAPPENED_MS),
            "place": self._place,
        }
        sent = time.monotonic_ns()
        await self._dispatcher.open_call(body)
        await self._until("full", self._full_s)
        await self._until("arrived", self._there_s)
        held = self.state
        await self._dispatcher.end_call(self._id, "The crew is there.")
        stood = await all_do(self._crowd, "stood", id=self._id)
        self.missing = sum(each["missing"] for each in stood)
        self.frames = sum(each["frames"] for each in stood)
        await all_do(self._crowd, "search", needles=[])
        self.state = await self._dispatcher.call_state(self._id)
        near, seats = held["call"]["near"], held["seats"]
        calls = (await self._dispatcher.policy())["calls"]
        most = len(calls[CATEGORY]["seats"])
        return Called(self._id, QUALS, near, held["ring_m"], most, [seat["responder"] for seat in seats], sent)

    async def _until(self, what: str, most_s: float) -> None:
        """Poll the state of the call for at most `most_s` seconds.

        If `what` is "full", stop as soon as the call has enough responders; otherwise, stop as soon as every responder
        on the way has arrived.
        """
        ends_at = time.monotonic() + most_s
        while True:
            state = self.state = await self._dispatcher.call_state(self._id)
            are_there = state["seats"] and all(seat["state"] == "arrived" for seat in state["seats"])
            if (state["state"] == "full" if what == "full" else are_there) or time.monotonic() > ends_at:
                return
            await asyncio.sleep(POLL_S)

    def told(self) -> str:
        """Return a summary of the call in one line, for people to read: how many were called, and who is coming."""
        state = self.state
        goes = ", ".join(f"{seat['role']} {seat['state']}" for seat in state["seats"]) or "nobody"
        called = f"{state['rung']} called within {state['ring_m']} m of the cell, {state['declined']} declined"
        return f"{called}; coming: {goes}"
