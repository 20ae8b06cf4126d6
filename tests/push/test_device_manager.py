"""Effects of time on devices, the urgency of pushes, and their delivery records.

`test_model.py` tests everything else.
"""

import asyncio
import dataclasses
import functools
import json
from collections import Counter

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from push.memory_devices import MemoryDevices
from support.fakes import DALLAS, NOON_MS, FakeClock, a_cancel, a_revision
from support.flipping import flipped

from geocast import tasks
from geocast.alertlog import Counts
from geocast.auth.tokens import Subject
from geocast.egress.outcomes import PostOutcome, PostResponse
from geocast.geometry.sphere import cell_of
from geocast.model.errors import StoreUnavailable
from geocast.push import requests, scheduler, shard_loader
from geocast.push.addresses import parse_services
from geocast.push.delivery_journal import DeliveryJournal
from geocast.push.device_manager import DeviceManager
from geocast.push.devices import RENEW_MS
from geocast.push.devicestore import DeliveryRecord, State, StoredDevice, read_line
from geocast.push.encryption import Keyring, Record
from geocast.push.means import DeviceMeans
from geocast.push.queues import OF_ONE, SLOTS, SPARE_SLOTS
from geocast.push.scheduler import MARKS
from geocast.push.service_limits import AT_MOST, FIRST, LAST_TRY_S, UNKNOWN
from geocast.push.shards import StaticShards
from geocast.push.webpush import Vapid, make_vapid_key, parse_vapid
from geocast.storage import write_behind

VAPID = parse_vapid(json.dumps({"keys": [make_vapid_key("x")]}).encode(), "file")
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
LEASE_MS = 30 * 86_400_000
TURNS = 80


class Notes:
    """A push client that keeps all pushes. `outcome` is the result of each; with None, answers wait for the test."""

    def __init__(self):
        self.pushes, self.waits = [], []
        self.came = asyncio.Event()  # set by the first push
        self.outcome = PostOutcome.SENT
        self.under_way = Counter()  # by host
        self.retry_after_s = None
        self.dead = None  # endpoints that contain this word are unreachable

    async def send(self, push, within_s):
        """Keep the push and return the result."""
        self.pushes.append(push)
        self.came.set()
        self.under_way[push.endpoint.host] += 1
        if self.outcome is None:
            self.waits.append(asyncio.get_running_loop().create_future())
            await self.waits[-1]
        self.under_way[push.endpoint.host] -= 1
        if self.dead is not None and self.dead in push.endpoint.url:
            return PostResponse(PostOutcome.AWAY, "no connection")
        return PostResponse(self.outcome, self.outcome.value, self.retry_after_s)

    def answer_all(self, outcome):
        """End all requests in progress, and all later ones, with this outcome."""
        self.outcome = outcome
        for wait in self.waits:
            if not wait.done():
                wait.set_result(None)

    def received(self):
        """Return the decrypted messages of the pushes."""
        read = functools.partial(http_ece.decrypt, private_key=KEY, auth_secret=bytes(16), version="aes128gcm")
        return [json.loads(read(push.body)) for push in self.pushes]


class Away(MemoryDevices):
    """A store that the test can make unavailable."""

    away = False

    async def put(self, device, was, **more):
        """Store a device after one turn of the loop."""
        await asyncio.sleep(0)
        return await super().put(device, was, **more)

    async def note(self, lines):
        """Write delivery records, unless the store is unavailable."""
        if self.away:
            raise StoreUnavailable("away")
        return await super().note(lines)


class Process:
    """A process with one device, in Dallas, and a clock that the test sets."""

    def __init__(self, services="push.example", store=None, shards=None):
        self.services = parse_services(services)
        self.clock = FakeClock()
        self.client = Notes()
        self.store = store or Away()
        self.shards = shards or StaticShards()
        self.standing = {}  # by `sub`: whether the token is valid; None: its key is unknown
        self.waking = self.again()

    def again(self):
        """Return a new manager on the same store, as after a restart."""
        vapid = Vapid(VAPID, "mailto:a@b.example")
        return DeviceManager(DeviceMeans(
            1_000, self.store, self.shards, self.client, Keyring([bytes(32)]), self.services, vapid,
            self.clock, chance=lambda: 0.5, stands=lambda record: self.standing.get(record.sub, True),
        ))  # fmt: skip

    async def register(self, name="device", holding=None, **fields):
        """Register a device, which says that it has the alerts `holding`; return how many pushes follow."""
        given = {
            "id": name, "sub": name, "endpoint": f"https://push.example/{name}", "p256dh": PUBLIC, "auth": bytes(16),
            "vapid": VAPID[0].public, "topic_key": bytes(32), "secret": name.encode(),
            "cells": (f"{cell_of(*DALLAS, 9):x}",), "categories": None, "min_severity": "minor", "languages": (),
            "proofs": False, "may_test": False, "issued_at_s": None, "expires_at_ms": NOON_MS + LEASE_MS, "kid": "k",
        }  # fmt: skip
        record, until_ms = Record(**(given | fields)), self.clock.wall_ms + LEASE_MS
        digest = self.waking.records.digest_of(record.subject, record.id)
        done = await self.waking.put(digest, lambda _before: (record, until_ms), holding=holding)
        await turns()
        return done.live

    async def reads(self, entry):
        """Deliver an entry of the log."""
        self.waking.deliver(entry)
        await turns()

    async def passes(self, seconds):
        """Let time pass, then run the periodic check."""
        self.clock.advance(seconds)
        await self.waking.sweep()
        await turns()


async def turns():
    """Let the loop do everything that it can do without the test."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("severity", "urgency"), [("extreme", "high"), ("severe", "high"), ("moderate", "normal"), ("minor", "low")]
)
async def test_urgency_of_push_and_of_cancel_follows_severity(severity, urgency):
    """The Urgency of RFC 8030 follows the alert (rule WPT4)."""
    process = Process()
    await process.register()
    await process.reads(a_revision(severity=severity))
    await process.reads(a_cancel())
    assert [push.urgency for push in process.client.pushes] == [urgency, urgency]


async def test_device_is_reminded_once_three_days_before_its_registration_ends():
    """`renew` has low urgency, and is not repeated after a restart (rule WPR9)."""
    process = Process()
    await process.register()
    await process.passes((LEASE_MS - RENEW_MS) / 1000 - 1)
    assert process.client.pushes == []
    await process.passes(1)
    [message], [push] = process.client.received(), process.client.pushes
    assert (message["type"], message["until"]) == ("renew", "2026-03-02T12:00:00.000Z")
    assert (push.urgency, push.ttl_s) == ("low", RENEW_MS // 1000)
    process.waking = process.again()
    await process.waking.loader.take(StaticShards().terms)
    await process.passes(3_600)
    assert len(process.client.pushes) == 1


async def test_reminder_that_was_not_sent_is_pushed_again():
    """The reminder is pushed a minute later, or when the device has no other request in progress (rule WPR9)."""
    process = Process()
    await process.register()
    process.client.outcome = PostOutcome.BUSY
    await process.passes((LEASE_MS - RENEW_MS) / 1000)
    process.client.outcome = PostOutcome.SENT
    for _ in range(3):
        await process.passes(60)
    assert [message["type"] for message in process.client.received()] == ["renew", "renew"]


async def test_daily_registrations_of_a_device_do_not_add_reminders_or_timers():
    """Repeated registrations use no more memory than one (rule WPR9)."""
    process = Process()
    for day in range(5):
        process.clock.advance(86_400)
        await process.register()
        assert len(process.waking._leases._leases._heap) == 1, day
    await process.passes((LEASE_MS - RENEW_MS) / 1000 - 1)
    assert process.client.pushes == []
    await process.passes(1)
    assert [message["type"] for message in process.client.received()] == ["renew"]
    await process.passes(RENEW_MS / 1000 - 1)
    assert len(process.waking.devices) == 1
    await process.passes(1)
    assert len(process.waking.devices) == 0


async def test_device_is_forgotten_when_its_registration_ends():
    """The device's row in memory, its stored record and its delivery records are deleted (rule WPR9)."""
    process = Process()
    await process.register()
    await process.passes(LEASE_MS / 1000 - 1)
    assert len(process.waking.devices) == 1
    await process.passes(1)
    assert len(process.waking.devices) == len(process.waking.fanout) == 0
    assert process.store._memory.devices == process.store._memory.lines == {}
    await process.reads(a_revision(issued_at=process.clock.wall_ms, expires_at=process.clock.wall_ms + 60_000))
    assert len(process.client.pushes) == 1  # the renewal


@pytest.mark.parametrize("is_here", [False, True])
async def test_device_of_revoked_token_stored_by_another_process_is_forgotten_when_read(is_here):
    """This process has already checked all its other devices for revoked tokens (rules WPR9, BA3)."""
    process = Process()
    if is_here:
        await process.register()
    process.standing["device"] = False
    await process.register()
    await process.reads(a_revision("a"))
    await process.passes(0.1)
    assert process.client.pushes == []
    assert len(process.waking.devices) == 0
    assert process.waking.devices.forgotten == {"revoked": 1}
    assert await process.waking.records.owned(Subject("", "device")) == []


async def test_device_whose_token_key_is_unknown_is_pushed_to_until_tokens_are_rechecked():
    """Another process may have fetched the key from its URL earlier. The check after a reload decides (rule WPR9)."""
    process = Process()
    process.standing["device"] = None
    await process.register()
    await process.reads(a_revision("a"))
    assert len(process.client.pushes) == 1
    await process.waking.reader.recheck()
    assert len(process.waking.devices) == 0


async def test_device_gets_test_alerts_only_until_its_token_expires():
    """The device gets all other alerts until its registration ends (rule R6)."""
    process = Process()
    await process.register(may_test=True, expires_at_ms=NOON_MS + 60_000)
    await process.reads(a_revision("test", status="test"))
    await process.passes(60)
    await process.reads(a_revision("test", 2, status="test"))
    await process.reads(a_revision("real"))
    told = [(each["alert"]["id"], each["alert"]["revision"]) for each in process.client.received()]
    assert told == [("test", 1), ("real", 1)]


async def test_most_severe_waiting_alert_is_pushed_first():
    """A cancel is pushed before an alert of equal severity. A request in progress is not interrupted (rule WPO1)."""
    process = Process()
    await process.register()
    await process.reads(a_revision("off", severity="severe"))
    process.client.outcome = PostOutcome.BUSY
    await process.reads(a_revision("first", severity="minor"))
    process.client.outcome = PostOutcome.SENT
    await process.reads(a_revision("severe", severity="severe"))
    await process.reads(a_revision("extreme", severity="extreme"))
    await process.reads(a_cancel("off"))
    await process.passes(2)
    said = [message.get("id") or message["alert"]["id"] for message in process.client.received()]
    assert said == ["off", "first", "extreme", "off", "severe", "first"]


async def test_requests_beyond_the_limit_of_a_push_host_wait():
    """A host that has not taken a push for a while gets 32 requests at once, then up to 200 (rules WPO1, WPO2)."""
    process = Process()
    for number in range(300):
        await process.register(f"device-{number}")
    process.client.outcome = None
    await process.reads(a_revision("first", severity="minor"))
    assert process.waking.sending.queues.under_way == len(process.client.pushes) == FIRST
    assert process.waking.sending.queues.waiting() == 300 - FIRST
    process.client.answer_all(PostOutcome.SENT)
    await turns()
    await turns()
    assert len(process.client.pushes) == 300
    process.client.outcome = None
    await process.reads(a_revision("second", severity="minor"))
    assert process.waking.sending.queues.under_way == AT_MOST < SLOTS
    assert process.waking.sending.queues.waiting() == 100


async def test_push_is_recorded_as_maybe_sent_before_its_request():
    """The outcome is recorded after the request (rule WPS2)."""
    process = Process()
    await process.register()
    process.client.outcome = None
    await process.reads(a_revision())
    [told] = process.store._memory.lines.values()
    assert [(line.number, line.state) for line in told.values()] == [(1, State.MAYBE)]
    process.waking.sending.end()
    process.client.outcome = PostOutcome.SENT
    process.waking = process.again()
    await process.reads(a_revision())
    await process.waking.loader.take(StaticShards().terms)  # after the log (rule WPS5)
    await turns()
    await process.passes(1)
    assert [(line.number, line.state) for line in told.values()] == [(1, State.SENT)]
    assert len(process.client.pushes) == 2


async def test_pushes_are_sent_while_the_store_is_unavailable_and_recorded_later():
    """An alert that a phone gets twice is better than one that it misses (rule WPS4)."""
    process = Process()
    await process.register()
    process.store.away = True
    await process.reads(a_revision())
    assert len(process.client.pushes) == 1
    await process.passes(1)
    assert process.waking.recorder.unrecorded > 0
    assert process.waking.recorder.error == "away"
    process.store.away = False
    await process.passes(1)
    [told] = process.store._memory.lines.values()
    assert [(line.number, line.state) for line in told.values()] == [(1, State.SENT)]
    assert process.waking.recorder.error is None


class Hanging(Away):
    """A store whose writes wait for the test, as on a disk that hangs, and fail if the test says so."""

    def __init__(self):
        super().__init__()
        self.works = asyncio.Event()
        self.works.set()
        self.writes = []

    async def note(self, lines):
        """Write delivery records once the store works."""
        self.writes.append(list(lines))
        await self.works.wait()
        return await super().note(lines)

    async def forget(self, devices):
        """Delete registrations once the store works."""
        await self.works.wait()
        await super().forget(devices)


async def test_pushes_wait_once_for_a_store_that_hangs_and_sweeps_never_do(monkeypatch):
    """The journal is patient once, until the store works again; then it is complete (rule WPS4)."""
    monkeypatch.setattr(write_behind, "PATIENCE_S", 0.01)
    process = Process(store=Hanging())
    for name in ("a", "b", "c"):
        await process.register(name, min_severity="minor" if name == "a" else "severe")
    process.store.works.clear()
    process.waking.deliver(a_revision("minor", severity="minor"))
    await process.client.came.wait()
    assert process.waking.recorder.error == "no answer for 0.01 s"
    monkeypatch.setattr(write_behind, "PATIENCE_S", 999)
    [device] = [each for each in process.waking.devices if each.record.sub == "c"]
    device.until_ms = process.clock.wall_ms  # forgetting it hangs as well
    process.waking._leases._schedule_check(device, device.until_ms)
    await process.passes(1)
    await process.reads(a_revision("severe", severity="severe"))
    assert len(process.client.pushes) == 3
    assert (len(process.store.writes), process.waking.recorder.unrecorded) == (1, 3)
    process.store.works.set()
    await process.passes(1)
    lines = [line for told in process.store._memory.lines.values() for line in told.values()]
    assert [line.state for line in lines] == [State.SENT] * 3
    assert process.waking.recorder.error is None


async def test_lines_after_a_failed_write_are_written_twice_because_the_failed_one_may_come_late():
    """Otherwise an older line would stay in the store (rule WPS4)."""
    process = Process(store=Hanging())
    await process.register()
    process.store.away = True
    await process.reads(a_revision())
    process.store.away = False
    process.store.writes.clear()
    for _ in range(3):
        await process.passes(1)
    assert [[line.state for line in each] for each in process.store.writes] == [[State.SENT]] * 2


async def test_pushes_accepted_by_their_service_are_counted_once():
    """Only revisions count, not cancels.

    If the log can't store the counts, they are handed to it again later (rule H7).
    """
    process, counted = Process(), []

    async def away(counts):
        counted.append(counts)
        return False

    async def there(counts):
        counted.append(counts)
        return True

    await process.register()
    process.client.outcome = PostOutcome.REFUSED
    await process.reads(a_revision("b", severity="minor"))
    await process.waking.store_counts(there)
    process.client.outcome = PostOutcome.SENT
    await process.passes(3_601)
    await process.reads(a_revision("a", expires_at=NOON_MS + 7_200_000))
    await process.waking.store_counts(away)
    await process.reads(a_revision("a", 2, expires_at=NOON_MS + 7_200_000))
    await process.reads(a_cancel("a", 3, ends_at=NOON_MS + 7_200_000))
    await process.waking.store_counts(there)
    await process.waking.store_counts(there)
    assert counted == [{}, {"a": Counts(pushed=1)}, {"a": Counts(pushed=2)}, {}]


async def test_outcome_of_a_push_is_stored_before_the_push_is_counted():
    """Otherwise a push that is repeated after a kill would be counted twice (rules H7, WPS2)."""
    process = Process()
    await process.register()
    await process.reads(a_revision())
    noted = []

    async def store(counts):
        [told] = process.store._memory.lines.values()
        noted.extend(line.state for line in told.values())
        return True

    await process.waking.store_counts(store)
    assert noted == [State.SENT]


async def test_stored_device_that_cannot_be_decrypted_is_left_in_store_and_counted():
    """A stored device whose push service is no longer allowed is left and counted, too (rule WPS4)."""
    process = Process()
    await process.register()
    [device] = process.store._memory.devices.values()
    process.store._memory.devices[device.device] = device._replace(sealed=flipped(device.sealed))
    await process.store.put(device._replace(device=b"other", endpoint=b"elsewhere"), None)
    process.waking = process.again()
    await process.waking.loader.take(StaticShards().terms)
    assert (len(process.waking.devices), process.waking.reader.set_aside) == (0, 2)
    assert len(process.store._memory.devices) == 2


async def test_stored_device_with_odd_content_is_set_aside_and_named_and_all_others_are_loaded(caplog):
    """A delivery record that can't be read counts as maybe sent, so the device gets the cancel (rule WPS4)."""
    process = Process()
    for name in ("odd-time", "odd-line", "good"):
        await process.register(name)
    await process.register("later-release", min_severity="minor")
    await process.reads(a_revision())
    await process.passes(1)
    devices, lines = process.store._memory.devices, process.store._memory.lines
    of = {each.record.sub: each for each in process.waking.devices}
    odd = of["odd-time"].digest
    devices[odd] = devices[odd]._replace(until_ms=-5)
    [alert] = lines[of["odd-line"].digest]
    lines[of["odd-line"].digest][alert] = read_line(of["odd-line"].digest, alert, b"odd-line", (1, 9, 5))
    later = dataclasses.replace(of["later-release"].record, min_severity="dire")
    stored = process.waking.records.sealed(later, devices[of["later-release"].digest].until_ms)
    devices[stored.device] = stored
    process.client.pushes.clear()
    process.waking = process.again()
    process.waking.deliver(a_revision())
    process.waking.deliver(a_cancel())
    await process.waking.loader.take(StaticShards().terms)
    await turns()
    assert {each.record.sub for each in process.waking.devices} == {"odd-line", "good"}
    assert [push.endpoint.url.rpartition("/")[2] for push in process.client.pushes].count("odd-line") == 1
    assert process.waking.reader.set_aside == 3
    assert all(each.hex() in caplog.text for each in (odd, stored.device, of["odd-line"].digest))
    assert await process.waking.reader.read(stored.device) is None


async def test_registration_computes_no_digest_of_live_alerts(monkeypatch):
    """Each entry of the log adds its own (rule WPS5): so nothing takes longer the more alerts are live."""
    process, digests = Process(), []
    for number in range(300):
        process.waking.deliver(a_revision(f"a-{number}", expires_at=NOON_MS + 60_000))
    whole = Keyring.digest
    monkeypatch.setattr(Keyring, "digest", lambda *given, **key: digests.append(given) or whole(*given, **key))
    process.waking.deliver(a_revision("last", expires_at=NOON_MS + 60_000))
    await process.register(cells=())
    assert len(digests) < 10
    for _ in range(4):
        await process.passes(60)
    assert (len(process.waking.live), process.waking.sending.lines._ids) == (0, [{}])


async def test_live_alerts_are_launched_in_slices_the_most_severe_first(monkeypatch):
    """Other tasks run between slices, however many alerts are live when a shard is taken (rule WPO3)."""
    monkeypatch.setattr(shard_loader, "LAUNCHED", 10)
    process = Process()
    await process.register()
    process.waking = process.again()
    for number in range(100):
        process.waking.deliver(a_revision(f"a-{number}", severity="minor"))
    process.waking.deliver(a_revision("worst", severity="extreme"))
    launched, at_once = [], []
    whole = process.waking.fanout.launch
    monkeypatch.setattr(
        process.waking.fanout, "launch", lambda alert, now: launched.append(alert.id) or whole(alert, now)
    )
    taking = asyncio.ensure_future(process.waking.loader.take(StaticShards().terms))
    while not taking.done():
        before = len(launched)
        await asyncio.sleep(0)
        at_once.append(len(launched) - before)
    assert launched[0] == "worst"
    assert (len(launched), max(at_once)) == (101, 10)


async def test_what_is_over_is_true_only_for_alerts_that_are_not_live():
    process = Process()
    await process.register()
    await process.reads(a_revision())
    await process.passes(0)
    digest = Keyring([bytes(32)]).digest
    is_over = process.waking.sending.lines.is_over
    assert (is_over(digest("alert", "a-1")), is_over(digest("alert", "b"))) == (False, True)


@pytest.mark.parametrize("broken", ["took", "record", "_pause_s", "_message", "encrypt", "send", "_act_on_answer"])
async def test_exception_in_a_push_request_loses_neither_the_phone_nor_its_slot(monkeypatch, broken, caplog):
    """Each phone gets the next alert, and a stop waits for nothing (rule WPO1). The exception is logged and counted."""
    tasks.watch_loop()
    counted, process = tasks.failures["callback"], Process()
    for number in range(5):
        await process.register(f"device-{number}")
    sending, failures = process.waking.sending, iter([True, False, True])

    def fails(whole):
        def instead(*arguments, **more):
            if next(failures, False):
                raise RuntimeError("a bug")
            return whole(*arguments, **more)

        return instead

    lane = type(next(iter(sending.queues.lanes.values())))
    owners = {
        "record": lane, "_message": scheduler, "encrypt": requests, "send": process.client,
        "_pause_s": sending.requests,
    }  # fmt: skip
    owner = owners.get(broken, sending)
    monkeypatch.setattr(owner, broken, fails(getattr(owner, broken)))
    await process.reads(a_revision("first"))
    await process.passes(5)
    await process.reads(a_revision("second"))
    told = Counter(message["alert"]["id"] for message in process.client.received())
    assert (told["first"] >= 5, told["second"]) == (True, 5)
    assert (sending.queues.under_way, sending.idle.is_set()) == (0, True)
    assert {lane.under_way for lane in sending.queues.lanes.values()} == {0}
    assert "a bug" in caplog.text
    assert tasks.failures["callback"] - counted == 2


@pytest.mark.parametrize(("owner", "broken"), [(scheduler, "_message"), (scheduler.messages, "plaintext")])
async def test_alert_that_cannot_become_a_push_is_set_aside_until_its_next_revision(monkeypatch, owner, broken):
    """It delays no other alert of the phone for longer than three tries take, and is counted (HD4)."""
    tasks.watch_loop()
    process = Process()
    await process.register()
    whole, tries = getattr(owner, broken), []

    def fails(message, *rest, **more):
        is_odd = message.id == "odd" if broken == "_message" else b'"odd"' in message.payload
        if is_odd and message.number == 1:
            tries.append(message)
            raise RuntimeError("a bug")
        return whole(message, *rest, **more)

    monkeypatch.setattr(owner, broken, fails)
    await process.reads(a_revision("odd", severity="extreme"))
    await process.reads(a_revision("good", severity="minor"))
    for _ in range(8):
        await process.passes(100)
    assert [message["alert"]["id"] for message in process.client.received()] == ["good"]
    assert (len(tries), process.waking.sending.requests.outcomes["unmade"]) == (3, 1)
    await process.reads(a_revision("odd", 2, severity="extreme"))
    await process.passes(0)
    assert process.client.received()[-1]["alert"]["revision"] == 2
    assert not any(each.unmade for each in process.waking.devices._rows if each is not None)


async def test_second_record_of_a_push_within_a_transaction_replaces_the_first():
    """Both delivery records are written in one transaction (rule WPS2)."""
    store = MemoryDevices()
    await store.put(StoredDevice(b"d", b"o", b"e", b"s", 9, b""), None)
    recorder = DeliveryJournal(store, StaticShards())
    recorder.after(DeliveryRecord(b"d", b"a", 1, State.MAYBE, 5, b"s"))
    recorder.after(DeliveryRecord(b"d", b"a", 1, State.SENT, 5, b"s"))
    await recorder.flush()
    assert (await store.find(b"d"))[1] == [DeliveryRecord(b"d", b"a", 1, State.SENT, 5, b"s")]


async def test_pause_of_old_endpoint_does_not_apply_to_new_endpoint():
    """The end of the old pause does not end a pause of the new endpoint either (rule WPO2)."""
    process = Process()
    await process.register()
    process.client.outcome = PostOutcome.REFUSED
    await process.reads(a_revision("first", expires_at=NOON_MS + 60_000))
    await process.passes(60)  # the alert ends
    process.client.outcome = PostOutcome.SENT
    assert await process.register(endpoint="https://push.example/elsewhere") == 0
    more = {"issued_at": process.clock.wall_ms, "expires_at": process.clock.wall_ms + 7_200_000}
    await process.reads(a_revision("second", **more))
    assert len(process.client.pushes) == 2
    await process.passes(3_000)
    process.client.outcome = PostOutcome.REFUSED
    await process.reads(a_revision("third", **more))
    await process.passes(600)  # the old endpoint's hour is over, the new one's is not
    assert len(process.client.pushes) == 3
    await process.passes(3_000)
    assert len(process.client.pushes) == 4


async def test_device_that_registers_while_it_is_being_forgotten_stays_registered():
    """The store and the process agree (rules WPR9, WPR10)."""
    process = Process()
    await process.register()
    [device] = process.waking.devices
    forgetting = asyncio.ensure_future(process.waking.devices.forget([device], "asked"))
    await process.register(cells=())
    await forgetting
    [device] = process.waking.devices
    assert device.record.cells == ()
    assert list(process.store._memory.devices) == [device.digest]


async def test_devices_beyond_the_capacity_of_the_process_stay_in_the_store():
    """A lower `--max-devices` forgets nobody (rule WPR10)."""
    process = Process()
    for number in range(3):
        await process.register(f"device-{number}")
    vapid = Vapid(VAPID, "mailto:a@b.example")
    services = parse_services("push.example")
    keyring = Keyring([bytes(32)])
    shards = StaticShards()
    process.waking = DeviceManager(
        DeviceMeans(2, process.store, shards, process.client, keyring, services, vapid, process.clock)
    )
    await process.waking.loader.take(StaticShards().terms)
    assert (len(process.waking.devices), process.waking.reader.set_aside) == (2, 1)
    assert len(process.store._memory.devices) == 3


async def test_failure_of_old_endpoint_does_not_pause_new_endpoint():
    """The late answer concerns an endpoint that the device has left (rule WPO2)."""
    process = Process()
    await process.register()
    process.client.outcome = None
    await process.reads(a_revision(severity="minor"))
    await process.register(endpoint="https://push.example/new")
    process.client.outcome = PostOutcome.REFUSED
    process.client.waits[0].set_result(None)
    await turns()
    [device] = process.waking.devices
    assert device.endpoint.url.endswith("/new")
    assert len(process.client.pushes) == 2


@pytest.mark.parametrize("outcome", [PostOutcome.BUSY, PostOutcome.FAILED])
@pytest.mark.parametrize(("lasts_s", "waits_s"), [(3_600, 120), (60, 60 - LAST_TRY_S)])
async def test_device_gets_no_push_before_the_retry_after_time_has_passed(outcome, lasts_s, waits_s):
    """An alert that ends earlier is tried once more before its end (rule HD19)."""
    process = Process()
    await process.register()
    process.client.outcome, process.client.retry_after_s = outcome, 120.0
    await process.reads(a_revision(expires_at=NOON_MS + lasts_s * 1000))
    process.client.outcome = PostOutcome.SENT
    await process.passes(waits_s - 1)
    assert len(process.client.pushes) == 1
    await process.passes(1)
    assert len(process.client.pushes) == 2


# ---- hosts of push services ------------------------------------------------------------------------------------------


def at(host, name):
    """Return an endpoint on a host under `*.example`."""
    return f"https://{host}.example/{name}"


async def test_hosts_without_a_successful_push_get_only_the_spare_slots():
    """Even many such hosts leave all other slots to hosts with a successful push.

    When they answer, all their devices get the alert (rule HD2).
    """
    process = Process("good.example,*.example")
    for number in range(3 * SPARE_SLOTS):
        await process.register(f"other-{number}", endpoint=at(f"host-{number % 40}", number))
    await process.register("good", endpoint=at("good", "x"))
    process.client.outcome = None
    for number in range(3):
        await process.reads(a_revision(f"alert-{number}"))
        assert sum(process.client.under_way.values()) <= SPARE_SLOTS + 1
        assert max(process.client.under_way.values()) <= UNKNOWN
    assert process.client.under_way["good.example"] == 1
    process.client.answer_all(PostOutcome.SENT)
    for _ in range(20):
        await turns()
    assert len(process.client.pushes) == 3 * (3 * SPARE_SLOTS + 1)


async def test_devices_of_one_owner_use_few_slots_and_all_get_the_alert():
    """An owner with many devices on hosts that hang leaves the slots to others (rule HD2)."""
    process = Process()
    for number in range(8):
        await process.register(f"device-{number}", sub="owner")
    process.client.outcome = None
    await process.reads(a_revision())
    assert process.waking.sending.queues.under_way == 2 * OF_ONE
    process.client.answer_all(PostOutcome.SENT)
    await turns()
    await process.passes(1)
    assert len(process.client.pushes) == 8


async def test_host_with_a_successful_push_is_still_trusted_after_a_restart():
    """A few stored device records say that the host works, so its phones need not wait (rule HD2)."""
    process = Process("*.example")
    for number in range(4 * MARKS):
        await process.register(f"device-{number}", endpoint=at("good", number))
    await process.register("stranger", endpoint=at("other", "x"), cells=())
    await process.reads(a_revision("first"))
    process.waking = process.again()
    await process.waking.loader.take(StaticShards().terms)
    lanes = process.waking.sending.queues.lanes
    assert {host: lane.known for host, lane in lanes.items()} == {"good.example": True, "other.example": False}
    assert sum(device.record.worked for device in process.waking.devices) == lanes["good.example"].marked == MARKS


async def test_new_push_host_of_a_device_is_not_trusted_because_the_old_one_was():
    """The stored mark belongs to the host of the old endpoint (rule HD2)."""
    process = Process("*.example")
    await process.register(endpoint=at("good", "x"))
    await process.reads(a_revision("first"))
    await process.register(endpoint=at("other", "x"))
    assert {host: lane.known for host, lane in process.waking.sending.queues.lanes.items()} == {"other.example": False}
    [device] = process.waking.devices
    assert not device.record.worked
    assert not device.served


async def test_push_hosts_without_devices_are_forgotten():
    """A client that registers on one host after the other leaves nothing behind (rule HD14)."""
    process = Process("*.example")
    for number in range(20):
        await process.register(endpoint=at(f"host-{number}", "x"))
        await process.reads(a_revision(f"alert-{number}"))
    assert list(process.waking.sending.queues.lanes) == ["host-19.example"]
    await process.waking.devices.forget(list(process.waking.devices), "asked")
    assert process.waking.sending.queues.lanes == {}


async def test_suspended_push_host_is_tested_with_devices_that_it_served_before():
    """Endpoints that never worked don't delay the test, however many wait (rule HD2)."""
    process = Process()
    process.client.dead = "dead"
    for number in range(20):
        await process.register(f"good-{number}")
    await process.reads(a_revision("first"))
    for number in range(60):
        await process.register(f"dead-{number}")
    [lane] = process.waking.sending.queues.lanes.values()
    lane.width = 1  # the width after seven halvings
    process.client.dead = ""
    await process.reads(a_revision("second"))
    await turns()
    assert not lane.is_open
    process.client.dead = "dead"
    for _ in range(10):
        await process.passes(3)
    assert lane.is_open
    for _ in range(4):
        await process.passes(10)
    told = Counter(message["alert"]["id"] for message in process.client.received() if message["type"] == "alert")
    await turns()
    assert told["second"] >= 20
    assert all(device.failures == 0 for device in process.waking.devices if "good" in device.owner.sub)


async def test_suspended_push_host_that_never_accepted_a_push_is_probed_with_any_device():
    """New phones get the alert too (rule HD2)."""
    process = Process()
    process.client.dead = ""
    for number in range(20):
        await process.register(f"new-{number}")
    [lane] = process.waking.sending.queues.lanes.values()
    lane.width = 1
    for owner in range(5):
        lane.start()
        lane.record(PostOutcome.AWAY, owner, process.clock.now().monotonic)
        lane.end()
    process.waking.sending.queues._closed.add(lane)
    process.client.dead = None
    await process.reads(a_revision())
    assert process.client.pushes == []
    for _ in range(10):
        await process.passes(3)
    assert len(process.client.pushes) == 20
