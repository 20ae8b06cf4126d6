"""One unexpected exception inside a push process, at one call after the other of the same story.

After the exception some time passes. Then every phone has to have what it should have. No phone was sent an entry
twice, except after an answer that leaves open whether the push has arrived. All limits are as free as before.
"""

import asyncio
import os

from push.town import Fault, Town, revision, small_limits
from support.fakes import a_cancel, a_warning

from geocast.egress.outcomes import PostOutcome
from geocast.push.devices import RENEW_MS

REST_S = 100.0  # longer than each pause after one failure, and than the time until a phone is reminded again
OWNERS = {
    "Admission", "DeliveryJournal", "DeliveryLines", "Device", "DeviceManager", "DeviceReader", "Devices", "Gate",
    "LeaseWatch", "LeasedShards", "Owed", "PushRequests", "PushScheduler", "Queues", "ServiceLimit", "ShardLoader",
    "Slots", "Times", "WriteBehind",
}  # fmt: skip


async def story(town):
    """Let phones register, move, be away, change and leave, while alerts are revised and cancelled, and end."""
    town.fault.on = False
    anna, ben = town.phone("anna", 0), town.phone("ben", 100, languages=["fr-CA"])
    cleo, dora = town.phone("cleo", 5000), town.phone("dora", 0, owner="anna")
    emil = town.phone("emil", 50, owner="anna")
    fred, gina = town.phone("fred", 0, "x.wild.example"), town.phone("gina", 100, "x.wild.example")
    hugo = town.phone("hugo", 5000, "x.wild.example", least="severe")
    town.phone("ida", 200, "x.wild.example")
    jon = town.phone("jon", 0, "x.wild.example")
    for phone in town.phones:
        await phone.register()
    town.publish(revision("old", radius_m=9000))
    await asyncio.sleep(2.0)
    gina_digest = gina.digest
    town.fault.on = True
    town.store.is_shared = True
    await asyncio.sleep(3.5)
    town.publish(revision("old", 2, radius_m=9000))
    town.store.is_shared = False
    await asyncio.sleep(3.5)
    town.store.lose(gina_digest)
    await asyncio.sleep(0.5)
    tess = town.phone("tess", 0)
    tess.may_test_until = town.clock.wall_ms + 4_000
    kim = town.phone("kim", 0, until=town.clock.wall_ms + RENEW_MS + 3_000)
    lena = town.phone("lena", 0, until=town.clock.wall_ms + 9_000)
    await asyncio.gather(tess.register(), kim.register(), lena.register())
    town.publish(revision("drill", status="test"))
    town.publish(revision("one"))
    town.publish(revision("two", severity="extreme", metres=100))
    town.publish(revision("minor", severity="minor", radius_m=9000))
    await asyncio.sleep(0.05)
    town.publish(revision("one", 2))
    town.answer("push.example", PostOutcome.BUSY, PostOutcome.SENT, PostOutcome.BUSY, retry_after_s=1.0)
    town.publish(revision("short", expires_at=town.clock.wall_ms + 5_000))
    await asyncio.sleep(0.5)
    ben.is_asleep = True
    town.answer("gina", PostOutcome.MAYBE, PostOutcome.FAILED)
    town.answer("ida", PostOutcome.LARGE)
    town.publish(revision("three", radius_m=6000))
    town.publish(a_cancel("two"))
    await asyncio.sleep(0.3)
    await anna.register(**{"try": "a" * 32})
    cleo.place = 0
    await cleo.register()
    town.store.is_away = True
    town.publish(a_warning(alert_id="warning"))
    await asyncio.sleep(1.5)
    town.store.is_away = False
    hugo.place = 100
    hugo.asked["least"] = "minor"
    await hugo.register(town.elsewhere)
    await dora.readdress("y.wild.example")
    town.publish(revision("three", 2, radius_m=6000))
    await asyncio.sleep(0.01)
    town.publish(revision("three", 3, radius_m=400))
    await asyncio.sleep(0.5)
    town.answer("x.wild.example", *[PostOutcome.AWAY] * 50)
    town.publish(revision("four", radius_m=9000))
    town.publish(a_cancel("minor"))
    await asyncio.sleep(2.5)
    town.answer("x.wild.example")
    town.publish(revision("four", 2, radius_m=300))
    await emil.forget()
    await asyncio.sleep(4.0)
    town.publish(revision("five", severity="minor", radius_m=9000))
    town.publish(a_cancel("one", 3))
    await asyncio.sleep(1.0)
    town.answer("jon", *[PostOutcome.GONE] * 3)
    town.publish(revision("six", radius_m=9000))
    await asyncio.sleep(4.0)
    jon.is_here = False
    lena.is_here = False
    town.revoked.add("fred")
    fred.is_here = False
    town.reloaded.set()
    await asyncio.sleep(0.5)
    ben.wake()
    town.publish(revision("five", 2, severity="severe", radius_m=9000))
    await asyncio.sleep(4.0)
    town.fault.on = False
    town.sweep_s = town.pause_s = 2.0
    await asyncio.sleep(REST_S)
    town.publish(revision("last", radius_m=9000))
    await asyncio.sleep(5.0)
    found = [each for phone in town.phones for each in phone.verdict()] + town.leaks()
    found += ["no reminder"] * (kim.renewals == 0) + ["no own test"] * (anna.tests == 0)
    return found


def wrongs(monkeypatch, fault, name=None, at=-1):
    """Play the story with one exception, at this call of a method, and return what is wrong afterwards."""
    with fault.watching(monkeypatch, None if name is None else [name], at):
        town = Town()
        town.fault = fault
        try:
            return town.play(story)
        finally:
            fault.on = False
            town.close()


def test_exception_at_any_call_leaves_nobody_out(monkeypatch):
    """Each method of the classes that keep the state raises once: at its first, middle or last call, in turn.

    With SINGLE_FAULTS in the environment, each method and function that the story calls raises at all three.
    """
    small_limits(monkeypatch)
    fault = Fault()
    assert wrongs(monkeypatch, fault) == []
    calls = {name: [0, count // 2, count - 1] for name, count in sorted(fault.calls.items())}
    assert {"PushScheduler._run", "LeaseWatch._remind", "WriteBehind._write_all", "FanOut.note_taken"} < set(calls)
    if "SINGLE_FAULTS" not in os.environ:
        own = [name for name in calls if name.partition(".")[0] in OWNERS]
        calls = {name: [calls[name][number % 3]] for number, name in enumerate(own)}
    found = {
        f"{name} {at}": wrong
        for name, numbers in calls.items()
        for at in sorted(set(numbers))
        if (wrong := wrongs(monkeypatch, fault, name, at))
    }
    assert not found
