"""The call service of a node, with its own log and clock."""

import pytest
from support.fakes import FakeClock, call_request

from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import Requester
from geocast.calls.aeds import Aed, Aeds
from geocast.calls.decrypted_chain import opened_chain
from geocast.calls.eligibility import SeatRequest
from geocast.calls.encryption import CallKeys
from geocast.calls.openers import Openers
from geocast.calls.service import CallService
from geocast.config import SHARE
from geocast.model.call import Person
from geocast.model.problems import Problem

CALLS = """
name = "x"
[categories]
flood = { title = "Flood" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
residence_quals = ["medic"]
rings_m = [100, 300, 500]
[calls.choking]
title = "Choking"
quals = ["cpr"]
max_age_s = 600
seats = ["cpr"]
"""

POLICY = policy.parse(CALLS.encode(), None)

KEYS = CallKeys({"a": bytes(32)})

PATIENCE_S = 60.0  # for a log that a busy machine or a slow disk keeps away

ID = "cad-3.8f1c02aa"

DESK, OTHER, CHIEF = Requester("cad-3"), Requester("cad-4"), Requester("chief", manages=True)

HERE = (47.678, 8.831, 10.0)

AEDS = Aeds([Aed("node/1", 47.6772, 8.83, "Hall", None, None, True, None)])


class CallServiceHarness:
    """The call service of a node, with its own log and clock."""

    def __init__(self, alert_log=None, keys=KEYS, in_force=POLICY, aeds=AEDS):
        self.log = alert_log or MemoryLog()
        self.clock = FakeClock()
        self.appended = []
        openers = Openers(self.log, SHARE)
        self.calling = CallService(self.log, in_force, keys, self.clock, self.appended.append, aeds, openers)

    async def open(self, dispatcher=DESK, **changes):
        return await self.calling.open(call_request(**changes), dispatcher)

    async def revise(self, dispatcher=DESK, replaces=1, **changes):
        return await self.calling.revise(ID, call_request(replaces=replaces, **changes), dispatcher)

    async def end(self, dispatcher=DESK, reason="The crew is there."):
        return await self.calling.end(ID, {"reason": reason}, dispatcher)

    async def accept(self, sub="r-1", **changes):
        seat_request = SeatRequest(ID, Person(sub), frozenset({"medic"}), False, HERE, False)
        return await self.calling.accept(seat_request._replace(**changes))

    async def kinds(self, call_id=ID):
        return [entry.kind for entry in await self.log.history(call_id)]

    async def call(self):
        return opened_chain(KEYS, await self.log.history(ID)).call


async def refused(awaited):
    """Return the problem with which a request is refused."""
    with pytest.raises(Problem) as caught:
        await awaited
    return caught.value
