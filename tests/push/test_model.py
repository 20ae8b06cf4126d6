"""Random steps with devices, checked against the model of the rules in `tests/support/model.py`.

Each push is checked against the model at the moment when it is sent; the test chooses its outcome. When all requests
and pauses are over, no alert may be left to send to any device. A process may be killed at any step, and a new one
starts with the stored data. The same is repeated with two processes that share a store (rules WPN1, WPN2). Either
process may accept a registration, shards (groups of devices) move between the processes, and a process that has lost a
shard goes on for a while as if it still had it.
"""

import asyncio
import json
import os
from collections import Counter
from dataclasses import replace

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from push.devicestore.contract import begin_term
from push.memory_devices import MemoryDevices
from support.fakes import DALLAS, HOUR_MS, NOON_MS, FakeClock, a_cancel, a_revision
from support.model import SEVERITIES, Client, Item, Rules

from geocast.alertlog import Counts
from geocast.egress.outcomes import PostOutcome, PostResponse
from geocast.geometry.sphere import cell_of, cell_place
from geocast.model.alert import Circle
from geocast.push import shard_loader
from geocast.push.addresses import parse_services
from geocast.push.delivery_journal import DeliveryJournal
from geocast.push.device_manager import DeviceManager
from geocast.push.device_state import DeviceState
from geocast.push.devicestore import SHARDS, State, shard_of
from geocast.push.encryption import Keyring, Record
from geocast.push.means import DeviceMeans
from geocast.push.service_limits import AT_MOST
from geocast.push.webpush import Vapid, make_vapid_key, parse_vapid

pytestmark = pytest.mark.slow

EXAMPLES, STEPS = int(os.environ.get("GEOCAST_SOAK_EXAMPLES", "80")), 40
TURNS = 60  # turns of the event loop until nothing more happens by itself
NAMES = ["one", "two", "three"]
HOSTS = ["a.example", "other.b.example"]  # one that is known from the start; one that is unknown until it takes a push
SERVICES = parse_services("a.example,*.b.example")
VAPID = parse_vapid(json.dumps({"keys": [make_vapid_key("x")]}).encode(), "file")
PHONES = {name: ec.generate_private_key(ec.SECP256R1()) for name in NAMES}
AUTH = bytes(16)
CELLS = [f"{cell_of(DALLAS[0], DALLAS[1] + east, resolution):x}" for east in (0, 0.03, 0.06) for resolution in (9, 7)]
CIRCLES = [(DALLAS[0], DALLAS[1] + east, radius) for east in (0, 0.03) for radius in (600.0, 3_500.0)]
OUTCOMES = [*[PostOutcome.SENT] * 4, *PostOutcome]


class ByHand:
    """A push client whose answers the test gives."""

    def __init__(self, rung):
        self._answered = rung
        self.under_way = []
        self.wrong = []

    async def send(self, push, within_s):
        """Wait for the answer that the test gives."""
        answer = asyncio.get_running_loop().create_future()
        try:
            self.under_way.append((*self._answered(push), push.endpoint.url, answer))
        except AssertionError as error:  # the scheduler would count it as a failed push
            self.wrong.append(error)
            raise
        return await answer


class ByHandShards:
    """Shards (groups of devices) that the test gives to processes and takes away."""

    def __init__(self):
        self.terms = {}
        self.unsure = set()  # shards that another process may have
        self.lost = set()  # shards that the store said are lost

    def may_send(self, shard):
        """Return whether the process has the shard, as far as it knows."""
        return shard in self.terms and shard not in self.unsure

    def refused(self, shards):
        """Record that the store has refused writes of these shards."""
        self.unsure.update(shards)
        self.lost.update(shards)


class Process:
    """A push process, with its requests in progress."""

    def __init__(self, machine):
        self.shards = ByHandShards()
        self.store = machine.store.other()
        self.client = ByHand(machine.rung)
        self.late = []  # (client, answer, item) of requests under way when their shard was lost
        self.pushed = Counter()  # by alert: revisions that services took and the log does not count yet
        self.waking = DeviceManager(DeviceMeans(
            8, self.store, self.shards, self.client, machine.keyring, SERVICES, Vapid(VAPID, "mailto:a@b.example"),
            machine.clock, chance=lambda: 0.5,
        ))  # fmt: skip


class Pushes(RuleBasedStateMachine):
    """One process with few devices and few alerts, and services with any outcome."""

    PROCESSES = 1

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.rules = Rules()
        self.clients = {}  # name -> Client
        self.numbers = {}  # alert -> number of its last entry
        self.items = {}  # (alert, number) -> Item
        self.store = MemoryDevices()
        self.keyring = Keyring([bytes(32)])
        self.taken = []  # (client, alert, number) of each revision that a service took, in order
        self.stored = Counter()  # by alert: how many of them the log counts
        self.was_lost = False  # whether a lease was lost: its pushes may be sent and counted twice

    @initialize()
    def begin(self):
        """Start the processes with an empty store."""
        self.entries = []
        self.processes = [self.start() for _ in range(self.PROCESSES)]
        self.take(self.processes[0], range(SHARDS))

    def start(self):
        """Return a process that has read the log and has no shard yet."""
        process = Process(self)
        self.run_async(process.store.start())
        for entry in self.entries:
            self.run(lambda entry=entry: process.waking.deliver(entry))
        process.following = self.loop.create_task(process.waking.follow())
        return process

    def take(self, process, shards):
        """Begin a new lease of these shards and give them to a process, which drops its older leases first."""
        self.let_go(process, [shard for shard in shards if shard in process.shards.terms])
        terms = {shard: begin_term(self.store, shard) for shard in shards}
        process.shards.terms.update(terms)
        process.shards.unsure.difference_update(terms)
        process.shards.lost.difference_update(terms)
        self.run_async(process.waking.loader.take(terms))

    def let_go(self, process, shards):
        """Take these shards away from a process."""
        self.run_async(process.waking.loader.let_go(shards))
        for shard in shards:
            process.shards.terms.pop(shard, None)
        process.shards.lost.difference_update(shards)

    def holder_of(self, name):
        """Return the process that has the newest lease of a device's shard."""
        shard = shard_of(self.digest_of(name))
        newest = self.store._memory.terms[shard]
        [owner] = [each for each in self.processes if each.shards.terms.get(shard) == newest]
        return owner

    @property
    def under_way(self):
        """All requests in progress that the model does not already count as maybe sent."""
        return [(each, *request) for each in self.processes for request in each.client.under_way]

    # ---- running the event loop ----------------------------------------------------------------------------------

    def run(self, what):
        """Call a function in the event loop, and wait for all that follows from it."""

        async def main():
            what()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self.assert_nothing_wrong()

        self.loop.run_until_complete(main())

    def run_async(self, work):
        """Await a coroutine in the event loop, and wait for all that follows from it."""

        async def main():
            result = await work
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self.assert_nothing_wrong()
            return result

        return self.loop.run_until_complete(main())

    def assert_nothing_wrong(self):
        """Assert that every push was due when it went out, and that all processes still follow changes."""
        for each in getattr(self, "processes", []):
            assert each.client.wrong == []
            assert not each.following.done()

    # ---- requests and answers ------------------------------------------------------------------------------------

    def rung(self, push):
        """Check that a request is due now (rules R1 to R7, E1) and is the only one of its device."""
        [name] = [name for name in NAMES if push.endpoint.url.endswith(f"/{name}")]
        body = http_ece.decrypt(push.body, private_key=PHONES[name], auth_secret=AUTH, version="aes128gcm")
        message = json.loads(body)
        told = message if message["type"] == "cancel" else message["alert"]
        item = self.items[told["id"], told["revision"]]
        client, now = self.clients[name], self.clock.now()
        assert item == self.rules.due(client, item.id, now), f"{item} is not due for {name}"
        assert 1 <= push.ttl_s == (item.ends_at - now.wall_ms) // 1000
        assert client not in [other for _, other, *_ in self.under_way], "one request at a time"
        return client, item

    def answered(self, client, item, outcome):
        """Tell the model the outcome of a request."""
        if outcome is PostOutcome.MAYBE:
            client.recipient_of.add(item.id)
            client.told.add(item.id)
        if outcome is not PostOutcome.SENT:
            return
        if item.cancels:
            client.recipient_of.discard(item.id)
            client.told.discard(item.id)
        else:
            assert (item.id, item.number) not in client.sent, f"{item} was sent twice"
            client.sent.add((item.id, item.number))
            client.recipient_of.add(item.id)
            client.told.add(item.id)
            client.has[item.id] = max(item.number, client.has.get(item.id, 0))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), retry_after=st.sampled_from([None, 3.0]))
    def answer(self, data, outcome, retry_after):
        """Answer any of the requests in progress."""
        number = data.draw(st.integers(0, len(self.under_way) - 1))
        self.give(number, outcome, retry_after)

    def give(self, number, outcome, retry_after=None):
        """Answer the request with this index."""
        process, *request = self.under_way[number]
        process.client.under_way.remove(tuple(request))
        client, item, url, answer = request
        self.note_taken(process, client, item, outcome)
        [name] = [name for name, each in self.clients.items() if each is client] or [None]  # None: forgotten meanwhile
        if outcome is PostOutcome.GONE and name is not None and self.waking_device(name).record.endpoint == url:
            self.forget_client(name)  # the answer concerns its current endpoint
        elif name is not None:
            self.answered(client, item, outcome)
        self.run(lambda: answer.set_result(PostResponse(outcome, outcome.value, retry_after)))

    def note_taken(self, process, client, item, outcome):
        """Record a revision that a push service accepted."""
        if outcome is PostOutcome.SENT and not item.cancels:
            self.taken.append((client, item.id, item.number))
            process.pushed[item.id] += 1

    def digest_of(self, name):
        """Return the digest of the device with this name."""
        return self.keyring.digest("device", name, name * 6)

    def waking_device(self, name):
        """Return the device with this name from the process that has its shard."""
        return self.holder_of(name).waking.devices.find(self.digest_of(name))

    # ---- events --------------------------------------------------------------------------------------------------

    @rule(
        circle=st.sampled_from(CIRCLES),
        severity=st.sampled_from(SEVERITIES),
        lasts_s=st.sampled_from([20, 120, 3_600]),
        data=st.data(),
    )
    def publish(self, circle, severity, lasts_s, data):
        """Publish a new alert, or the next revision of a live one."""
        now = self.clock.now()
        live = sorted(a for a, alert in self.rules.alerts.items() if not alert.ended(now) and alert.cancel is None)
        new = [f"a{len(self.numbers)}"] if len(self.numbers) < 6 else []
        if not live + new:
            return
        alert_id = data.draw(st.sampled_from(live + new))
        number = self.numbers.get(alert_id, 0) + 1
        ends_at = now.wall_ms + lasts_s * 1_000
        if number > 1:
            ends_at = max(ends_at, self.rules.alerts[alert_id].revision.ends_at)
        item = Item(alert_id, number, ends_at, severity, "robbery", area=(circle,), issued_at=now.wall_ms)
        entry = a_revision(
            alert_id, number, area=(Circle(*circle),), severity=severity, expires_at=ends_at, issued_at=now.wall_ms
        )
        self.read(item, entry)

    @rule(data=st.data())
    def cancel(self, data):
        """Cancel a live alert."""
        now = self.clock.now()
        live = sorted(a for a, alert in self.rules.alerts.items() if not alert.ended(now) and alert.cancel is None)
        if not live:
            return
        alert_id = data.draw(st.sampled_from(live))
        number = self.numbers[alert_id] + 1
        ends_at = self.rules.alerts[alert_id].revision.ends_at
        item = Item(alert_id, number, ends_at, cancels=True)
        self.read(item, a_cancel(alert_id, number, ends_at=ends_at, cancelled_at=now.wall_ms))

    def read(self, item, entry):
        """Deliver an entry of the log to the model and all processes."""
        self.numbers[item.id] = item.number
        self.items[item.id, item.number] = item
        self.entries.append(entry)
        self.rules.read(item, self.clock.now())
        for each in self.processes:
            self.run(lambda each=each: each.waking.deliver(entry))

    @rule(
        name=st.sampled_from(NAMES),
        cells=st.lists(st.sampled_from(CELLS), max_size=2),
        least=st.sampled_from(SEVERITIES),
        host=st.sampled_from(HOSTS),
        holds=st.booleans(),
        data=st.data(),
    )
    def put(self, name, cells, least, host, holds, data):
        """Register a device, for the first time or again. The device may name the alerts that it already has."""
        now = self.clock.now()
        holding = {}
        if holds and self.numbers:
            alert_id = data.draw(st.sampled_from(sorted(self.numbers)))
            holding = {alert_id: data.draw(st.integers(1, self.numbers[alert_id]))}
        public = PHONES[name].public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        device = self.waking_device(name)
        record = Record(
            id=name * 6, sub=name, endpoint=f"https://{host}/{name}", p256dh=public, auth=AUTH,
            vapid=VAPID[0].public, topic_key=bytes(32), secret=os.urandom(8), cells=tuple(cells), categories=None,
            min_severity=least, languages=(), proofs=False, may_test=False, issued_at_s=None,
            expires_at_ms=NOON_MS + 999 * HOUR_MS, kid="k",
        )  # fmt: skip
        if device is not None:
            record = replace(record, secret=device.record.secret)
            if device.record.endpoint == record.endpoint:
                record = replace(record, small=device.record.small)
        client = self.clients.get(name)
        if client is None:
            client = self.clients[name] = Client()
            client.sent = set()  # (id, revision)
            client.told = set()  # alerts that it was sent, or may have been, without a cancel
            self.rules.clients.append(client)
        client.places = [cell_place(int(cell, 16)) for cell in cells]
        client.min_severity = least
        for alert_id, held in holding.items():
            self.hold(client, alert_id, held, now)
        made = record, NOON_MS + 999 * HOUR_MS
        taker = data.draw(st.sampled_from(self.processes))
        self.run_async(taker.waking.put(self.digest_of(name), lambda _before: made, None, holding))

    def hold(self, client, alert_id, held, now):
        """Add an alert to those that the device already has (rule R5)."""
        has = client.has.get(alert_id, 0)
        self.rules.claim(client, alert_id, held, now)
        if alert_id in client.has:
            client.has[alert_id] = max(has, held)
        if alert_id in client.recipient_of:
            client.told.add(alert_id)

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def delete(self, name, data):
        """Forget a device. It may register again, as a new device."""
        device = self.waking_device(name)
        if device is not None:
            self.forget_client(name)
            taker = data.draw(st.sampled_from(self.processes))
            self.run_async(taker.waking.forget_asked([device.known]))

    def forget_client(self, name):
        self.rules.clients.remove(self.clients.pop(name))

    @rule(seconds=st.sampled_from([1, 2, 5, 60, 400]))
    def wait(self, seconds):
        """Let time pass."""
        self.clock.advance(seconds)
        self.rules.sweep(self.clock.now())
        for each in self.processes:
            self.run_async(each.waking.sweep())
        self.count(works=seconds != 5)

    def count(self, works):
        """Store the counts of each process, or keep them for the next time if the log is unavailable (rule H7)."""
        for each in self.processes:
            counted = Counter()

            async def store(counts, counted=counted):
                counted.update({alert_id: each.pushed for alert_id, each in counts.items()} if works else {})
                assert all(each == Counts(pushed=each.pushed) for each in counts.values())
                return works

            self.run_async(each.waking.store_counts(store))
            if works:
                assert counted == each.pushed
                self.stored += counted
                each.pushed.clear()
        for alert_id, pushes in self.stored.items():
            pairs = {(client, number) for client, alert, number in self.taken if alert == alert_id}
            assert self.was_lost or pushes <= len(pairs), f"a push of {alert_id} was counted twice"

    @rule(data=st.data())
    def kill(self, data):
        """Kill a process and its requests, and start another process with the stored data (rule WPS3)."""
        killed = data.draw(st.sampled_from(self.processes))
        held = [name for name in self.clients if self.holder_of(name) is killed]
        shards = [shard for shard, term in killed.shards.terms.items() if self.store._memory.terms[shard] == term]
        self.stop(killed)
        self.know_what_is_stored(held)
        self.processes.remove(killed)
        self.processes.append(self.start())
        self.take(self.processes[-1], shards)

    def know_what_is_stored(self, names):
        """Set the model of these devices to the content of the store.

        The store must have every alert that a device was sent, may have been sent, or said it has. Alerts of requests
        that were in progress, or answered in the last moments, are stored as MAYBE.
        """
        for name in names:
            client = self.clients[name]
            stored = {line.alert: line for line in self.store._memory.lines[self.digest_of(name)].values()}
            for alert_id in self.rules.alerts:
                line = stored.get(self.keyring.digest("alert", alert_id))
                assert line is not None or alert_id not in client.told, f"{name} may miss the cancel of {alert_id}"
                client.recipient_of.discard(alert_id)
                has = client.has.pop(alert_id, None)
                if line is not None:
                    client.recipient_of.add(alert_id)
                if line is None or line.state is State.MAYBE:
                    client.sent -= {each for each in client.sent if each[0] == alert_id}
                if line is not None and line.state is State.SENT:
                    assert has >= line.number
                    client.has[alert_id] = line.number
            client.claims.clear()

    @rule()
    def come_to_rest(self):
        """Answer all requests and end all pauses.

        Then no alert may be left to send to any device, except alerts that have just ended.
        """
        for _ in range(200):
            if self.under_way:
                self.give(0, PostOutcome.SENT)
            elif any(self.waking_device(name).state is DeviceState.PAUSED for name in self.clients) or any(
                not lane.is_open for each in self.processes for lane in each.waking.sending.queues.lanes.values()
            ):
                self.wait(60)
            else:
                break
        self.count(works=True)
        for client in self.clients.values():
            assert self.rules.all_due(client, self.clock.now()) == set()
        for name, client in self.clients.items():
            device = self.waking_device(name)
            for alert_id in client.recipient_of:
                alert = self.rules.alerts.get(alert_id)
                assert alert is None or alert.ended(self.clock.now()) or alert.cancel is None, f"{name} has no cancel"
            assert device.state is not DeviceState.UNDER_WAY

    def teardown(self):
        """Come to rest at the end."""
        try:
            if hasattr(self, "processes"):
                self.come_to_rest()
        finally:
            for each in getattr(self, "processes", []):
                self.stop(each)
            self.loop.close()

    def stop(self, process):
        """Stop a process at once: cancel all that it would still have done."""
        tasks = {process.following, *process.waking.sending._tasks}
        if process.waking.recorder._writing is not None:
            tasks.add(process.waking.recorder._writing)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(tasks))
        if process.waking.recorder._timer is not None:
            process.waking.recorder._timer.cancel()
        process.waking.sending.end()


class PushesOfTwo(Pushes):
    """Two processes that share a store, and move shards (groups of devices) between them."""

    PROCESSES = 2

    @rule(name=st.sampled_from(NAMES))
    def hand_over(self, name):
        """Let a process give a shard to the other one (rule WPN1)."""
        owner = self.holder_of(name)
        [other] = [each for each in self.processes if each is not owner]
        shard = shard_of(self.digest_of(name))
        owner.shards.unsure.add(shard)
        for number in reversed(range(len(self.under_way))):
            if self.under_way[number][0] is owner:
                self.give(number, PostOutcome.SENT)
        self.let_go(owner, [shard])
        self.know_what_is_stored([each for each in self.clients if shard_of(self.digest_of(each)) == shard])
        self.take(other, [shard])

    @rule(name=st.sampled_from(NAMES))
    def lose(self, name):
        """Move a shard to the other process while the first one does not notice.

        The first process sends nothing more of the shard, because its lease was not renewed. Its requests in progress
        count as maybe sent.
        """
        owner = self.holder_of(name)
        [other] = [each for each in self.processes if each is not owner]
        shard = shard_of(self.digest_of(name))
        names = [each for each in self.clients if shard_of(self.digest_of(each)) == shard]
        owner.shards.unsure.add(shard)
        self.was_lost = True
        late = [request for request in owner.client.under_way if request[0] in map(self.clients.get, names)]
        for client, item, _, answer in late:
            owner.client.under_way.remove((client, item, _, answer))
            self.answered(client, item, PostOutcome.MAYBE)
            owner.late.append((client, answer, item))
        self.know_what_is_stored(names)
        self.take(other, [shard])

    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def answer_late(self, data, outcome):
        """Answer a request that was in progress when its shard was lost.

        The store refuses the delivery record of its outcome. If the endpoint no longer exists, the device is forgotten,
        unless it has registered again.
        """
        late = [(each, request) for each in self.processes for request in each.late]
        if late:
            process, (client, answer, item) = data.draw(st.sampled_from(late))
            process.late.remove((client, answer, item))
            self.note_taken(process, None, item, outcome)
            self.run(lambda: answer.set_result(PostResponse(outcome, outcome.value)))
            for name in [name for name in self.clients if self.digest_of(name) not in self.store._memory.devices]:
                assert outcome is PostOutcome.GONE
                assert self.clients[name] is client
                self.forget_client(name)

    @rule()
    def notice(self):
        """Let processes notice the shards that they have lost, by a refusal of the store or otherwise."""
        for each in self.processes:
            old = {shard for shard, term in each.shards.terms.items() if self.store._memory.terms[shard] > term}
            assert each.shards.lost <= old
            self.let_go(each, old)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("machine", "settle_s"), [(Pushes, 3_600), (PushesOfTwo, 0)])
def test_random_events_push_to_each_device_what_the_model_predicts(machine, settle_s, monkeypatch):
    """The rules are R1 to R8, E1, WPS3, WPN1 and WPN2.

    Events are registrations, alerts, answers, pauses, kills and moves of shards between processes. Outcomes are
    recorded at once or with the next write. Any time between would depend on the machine's clock.
    """
    monkeypatch.setattr(DeliveryJournal, "SETTLE_S", settle_s)
    monkeypatch.setattr(shard_loader, "LET_GO_S", 0)  # don't wait for answers: the test gives them before
    assert len(NAMES) < AT_MOST
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
