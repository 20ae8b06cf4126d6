"""A push process with the tasks of a real one, phones and push services, in an event loop whose time passes at once.

The process is real, up to the interfaces of the push client and of the device store. Phones decrypt with the code of
the client library. `Fault` makes one call inside the process raise.
"""

import asyncio
import contextlib
import functools
import inspect
import sys
from collections import Counter

from push.memory_devices import MemoryDevices
from push.test_device_manager import VAPID
from support.fakes import DALLAS, NOON_MS, FakeClock, JumpingSelector, a_revision
from support.injections import Injected

from client_demo.python.subscription import Subscription
from geocast import tasks
from geocast.alertlog.memory import MemoryLog
from geocast.auth.scopes import TEST
from geocast.auth.tokens import Grant, Key, TokenProof
from geocast.egress.outcomes import PostOutcome, PostResponse
from geocast.geometry.sphere import cell_of
from geocast.model.alert import OWN_TEST_PREFIX, SEVERITY_RANK, Circle, Revision
from geocast.model.errors import StoreUnavailable
from geocast.push import queues, service_limits
from geocast.push.addresses import parse_services
from geocast.push.device_manager import DeviceManager
from geocast.push.devicestore import SHARDS
from geocast.push.encryption import Keyring
from geocast.push.leases import Leased, LeasedShards
from geocast.push.means import DeviceMeans
from geocast.push.registering import Registering, RegistrationTerms
from geocast.push.webpush import Vapid
from geocast.run.push import SWEEP_S
from geocast.storage import write_behind
from geocast.stream import delivery_flags, fanout, flights, live_alerts
from geocast.stream.log_reader import LogHealth, LogReader

METRE = 1 / 111_195  # in degrees of latitude
SERVICES = parse_services("push.example,*.wild.example")
KEYS = {"kty": "oct", "k": "AAAA", "kid": "k", "alg": "HS256"}
CONTACT = "mailto:a@b.example"
ANSWER_S = 0.02
NOT_HERE = {"geocast.push.routes", "geocast.push.http_client", "geocast.push.settings"}


class Fault:
    """Counts the calls of methods and functions inside a push process while `on`, and makes one of them raise.

    Calls that a test makes itself do not count.
    """

    def __init__(self):
        self.calls, self.at, self.on = Counter(), -1, False
        self.places = _places()

    @contextlib.contextmanager
    def watching(self, monkeypatch, names=None, at=-1):
        """Count the calls of these (by default of all) in the block; let the call with the number `at` raise."""
        self.calls, self.at = Counter(), at
        with monkeypatch.context() as patch:
            for name in names or self.places:
                owners, attribute, function = self.places[name]
                for owner in owners:
                    patch.setattr(owner, attribute, self._failing(name, function))
            yield

    def _failing(self, name, function):
        async def failed():
            raise Injected

        async def failed_batches():
            raise Injected
            yield

        @functools.wraps(function)
        def failing(*args, **options):
            if self.on and not sys._getframe(1).f_globals["__name__"].startswith("push."):
                self.calls[name] += 1
                if self.at == self.calls[name] - 1:
                    for each in filter(inspect.iscoroutine, args):
                        each.close()  # nobody will await it
                    if inspect.isasyncgenfunction(function):
                        return failed_batches()
                    if inspect.iscoroutinefunction(function):
                        return failed()
                    raise Injected
            return function(*args, **options)

        return failing


def _places():
    """Return what may fail: name -> (the classes or modules that have it, its name there, the function)."""
    ours = [each for name, each in sorted(sys.modules.items()) if name.startswith("geocast.")]
    modules = [each for each in ours if each.__name__.startswith("geocast.push.") and each.__name__ not in NOT_HERE]
    modules += [fanout, flights, live_alerts, delivery_flags, write_behind]
    found = {}
    for module in modules:
        for name, value in vars(module).items():
            if getattr(value, "__module__", "") != module.__name__:
                continue
            if inspect.isclass(value):
                functions = {each: made for each, made in vars(value).items() if _may_fail(each, made, module)}
                found |= {f"{value.__name__}.{each}": ([value], each, made) for each, made in functions.items()}
            elif _may_fail(name, value, module):
                users = [each for each in ours if vars(each).get(name) is value]
                found[f"{module.__name__}.{name}"] = users, name, value
    stores = {f"{each.__name__}.{name}": ([each], name, value) for each in (MemoryDevices, Store, PushServices)
              for name, value in vars(each).items() if _is_async(value)}  # fmt: skip
    return found | stores


def _is_async(value):
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)


def _may_fail(name, value, module):
    is_ours = inspect.isfunction(value) and value.__code__.co_filename == module.__file__
    is_plain = is_ours and not inspect.isgeneratorfunction(value)
    return is_plain and (name == "__init__" or not name.startswith("__"))


class QuickLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is that of a clock, which jumps to the next timer when there is nothing else to do."""

    def __init__(self, clock):
        self._fake = clock
        super().__init__(JumpingSelector(clock))

    def time(self):
        """Return the time of the clock."""
        return self._fake.monotonic


class Store(MemoryDevices):
    """A store of devices and leases, which may be away. Another process takes half of the shards while `is_shared`."""

    def __init__(self):
        super().__init__()
        self.is_away = self.is_shared = self.lost = False

    async def note(self, lines):
        """Write delivery records, unless the store is away."""
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().note(lines)

    async def lease(self, _process, held, *, may_take):
        """Renew the leases, and give the process what is free, up to its share."""
        terms, numbers = self._memory.terms, dict(held)
        share = SHARDS // 2 if self.is_shared else SHARDS
        for shard in range(SHARDS):
            if may_take and shard not in numbers and len(numbers) < share:
                numbers[shard] = terms[shard] = terms.get(shard, 0) + 1
        return Leased(numbers, share, crowded=False, free_in_s=None, lost=self.lost)

    async def release(self, _process, held, *, leaving):
        """Begin a new term of the shards."""
        for shard in held:
            self._memory.terms[shard] += 1

    def lose(self, device):
        """Lose a device, as a replica that was late."""
        memory = self._memory
        self._kept = memory.devices.pop(device), memory.lines.pop(device)
        self.lost = True
        memory.changed += len(memory.changes) + 1  # so `follow` can't yield what was missed
        memory.news.set()
        memory.news = asyncio.Event()

    async def restore(self, devices):
        """Store the devices that are not there."""
        for stored, _ in devices:
            self._memory.devices.setdefault(stored.device, stored)
            self._memory.lines.setdefault(stored.device, {})
        return ()


class PushServices:
    """The push services. They answer with `answers`, by host, as long as there are some, and then accept all pushes."""

    def __init__(self):
        self.phones = {}  # by endpoint
        self.answers = {}  # by host or phone's name: what they answer next

    async def send(self, push, within_s):
        """Take a push, and answer."""
        await asyncio.sleep(ANSWER_S)
        phone = self.phones.get(push.endpoint.url)
        if phone is None:
            return PostResponse(PostOutcome.GONE, "410")
        answers = self.answers.get(phone.name) or self.answers.get(push.endpoint.host)
        answer = answers.pop(0) if answers else PostResponse(PostOutcome.SENT, "201")
        if answer.outcome in (PostOutcome.SENT, PostOutcome.MAYBE):
            phone.accept(push, is_sure=answer.outcome is PostOutcome.SENT)
        return answer


class Phone:
    """A phone, which registers again until it is answered. It knows what it has, and what it was sent wrongly.

    A place is in metres north of Dallas.
    """

    def __init__(self, town, name, metres, host="push.example", *, owner="", **asked):
        self.town, self.name, self.id = town, name, (name * 16)[:16]
        self.place, self.host, self.asked = metres, host, asked
        self.may_test_until = 0
        self.owner = owner or name
        self.held, self.had, self.wrong = {}, set(), []
        self.renewals = self.tests = 0
        self.is_asleep, self.is_here = False, True
        self._kept = {}  # by Topic, while it sleeps
        self._accepted = Counter()
        self._doubted = Counter()
        self._subscribe()

    def _subscribe(self):
        number = len(self.town.services.phones)
        self._subscription = Subscription(f"https://{self.host}/{self.name}{number}")
        self.town.services.phones[self._subscription.endpoint] = self

    def _body(self, more):
        cell = f"{cell_of(DALLAS[0] + self.place * METRE, DALLAS[1], 9):x}"
        subscription = self._subscription.to_map() | {"expirationTime": self.asked.get("until")}
        return {
            "subscription": subscription, "places": [{"cell": cell}], "holding": dict(self.held),
            "min_severity": self.asked.get("least", "minor"), "languages": self.asked.get("languages", []), **more,
        }  # fmt: skip

    def _grant(self):
        scopes = {"alerts:receive", *([TEST] if self.may_test_until else [])}
        expires_at = self.may_test_until or NOON_MS + 86_400_000
        return Grant(self.owner, frozenset(scopes), expires_at, proof=TokenProof(self.owner, Key(KEYS), None))

    async def register(self, where=None, **more):
        """Register, at this process or another."""
        where = where or self.town.registering
        await self._insist(lambda: where.put(self.id, self._body(more), self._grant()))

    async def readdress(self, host):
        """Get another subscription, and register it."""
        del self.town.services.phones[self._subscription.endpoint]
        self.host = host
        self._subscribe()

        async def put():
            device = await self.town.registering.find(self.id, self._grant().subject)
            await self.town.registering.readdress(device, {"subscription": self._subscription.to_map()})

        await self._insist(put)

    async def forget(self):
        """Have its registration deleted."""
        await self._insist(lambda: self.town.registering.forget(self.id, self._grant().subject))
        self.is_here = False

    async def _insist(self, ask):
        while True:
            try:
                await ask()
            except (Injected, StoreUnavailable):
                await asyncio.sleep(0.3)
            else:
                return

    @property
    def digest(self):
        """The digest by which the store knows it."""
        return self.town.waking.records.digest_of(self._grant().subject, self.id)

    # ---- what it is sent -----------------------------------------------------------------------------------------

    def accept(self, push, *, is_sure):
        """Take a push from the push service; read it as soon as it is awake."""
        message = self._subscription.read(push.body)
        told = message.get("alert", message)
        if message["type"] in ("alert", "cancel"):
            entry = told["id"], told["revision"]
            if self._accepted[entry] > self._doubted[entry]:
                self.wrong.append(f"twice: {entry}")
            self._accepted[entry] += 1
            self._doubted[entry] += not is_sure
        if not self.is_here:
            self.wrong.append(f"after it has left: {message}")
        if self.is_asleep:
            self._kept[push.topic] = message
        else:
            self._read(message)

    def wake(self):
        """Read what the push service has kept."""
        self.is_asleep = False
        for message in self._kept.values():
            self._read(message)

    def _read(self, message):
        match message["type"]:
            case "alert" if message["alert"]["id"].startswith(OWN_TEST_PREFIX):
                self.tests += 1
            case "alert":
                self._read_alert(message["alert"]["id"], message["alert"]["revision"])
            case "cancel":
                self.held.pop(message["id"], None)
            case kind:
                assert kind == "renew", message
                self.renewals += 1

    def _read_alert(self, alert_id, number):
        entry = self.town.log[alert_id][number - 1]
        if alert_id not in self.had and not self._is_for(entry):
            self.wrong.append(f"not for it: {alert_id} {number}")
        if isinstance(self.town.log[alert_id][-1], Revision):
            self.held[alert_id] = max(number, self.held.get(alert_id, 0))
        self.had.add(alert_id)

    def _is_for(self, entry):
        [shape] = entry.alert.shapes
        is_inside = abs(DALLAS[0] + self.place * METRE - shape.lat) / METRE <= shape.radius_m
        is_wanted = SEVERITY_RANK[entry.alert.severity] >= SEVERITY_RANK[self.asked.get("least", "minor")]
        return is_inside and is_wanted and (entry.alert.status == "actual" or bool(self.may_test_until))

    def verdict(self):
        """Return what it was sent wrongly, and what it lacks now."""
        found, now_ms = [*self.wrong], self.town.clock.wall_ms
        lines = self.town.store._memory.lines.get(self.digest, {})
        for alert_id, chain in self.town.log.items():
            last, held = chain[-1], self.held.get(alert_id)
            if not self.is_here or now_ms >= last.ends_at:
                continue
            if not isinstance(last, Revision):
                found += [f"cancel lost: {alert_id}"] * (held is not None)
            elif held is None:
                is_over = last.alert.status != "actual" and now_ms >= self.may_test_until
                found += [f"lost: {alert_id}"] * (self._is_for(last) and not is_over)
            else:
                found += [f"stale: {alert_id} {held}"] * (held < last.revision and last.alert.status == "actual")
                has_line = self.town.keyring.digest("alert", alert_id) in lines
                found += [f"no line of {alert_id}"] * (not has_line)
        if self.is_here == (self.town.waking.devices.find(self.digest) is None):
            found.append(f"here: {self.is_here}")
        if self.is_here != (self.digest in self.town.store._memory.devices):
            found.append(f"stored: {not self.is_here}")
        return [f"{self.name}: {each}" for each in found]


class Town:
    """A push process, another one that has no devices, their phones and the entries of the log, by alert id."""

    def __init__(self):
        self.clock = FakeClock()
        self.loop = QuickLoop(self.clock)
        self.failures = []
        self.loop.set_exception_handler(lambda _loop, context: self.failures.append(context))
        self.store, self.services, self.keyring = Store(), PushServices(), Keyring([bytes(32)])
        self.shards = LeasedShards(self.store, self.clock)
        self.revoked = set()  # owners
        self.counted = Counter()
        self.log, self.phones = {}, []
        self.reloaded = asyncio.Event()
        self.sweep_s, self.pause_s = SWEEP_S, write_behind.WriteBehind.PROBE_S
        self.waking, self.reader, self.registering = self._process(self.store, self.shards)
        elsewhere = self.store.other()
        _, self._other_reader, self.elsewhere = self._process(elsewhere, LeasedShards(self.store, self.clock))

    def _process(self, store, shards):
        vapid = Vapid(VAPID, CONTACT)
        waking = DeviceManager(DeviceMeans(
            50, store, shards, self.services, self.keyring, SERVICES, vapid, self.clock, chance=lambda: 0.5,
            stands=lambda record: record.sub not in self.revoked,
        ))  # fmt: skip
        log = MemoryLog()
        reader = LogReader(log, self.clock, waking.live, waking.deliver, LogHealth(log, self.clock))
        return waking, reader, Registering(waking, vapid, RegistrationTerms(SERVICES), self.clock)

    def play(self, story):
        """Run a story, while the process does what it does by itself."""

        async def main():
            await self.store.start()
            waking = self.waking
            async with tasks.running(
                shards=lambda: self.shards.attach(waking.loader),
                devices=waking.follow,
                sweep=tasks.every(lambda: self.sweep_s, waking.sweep),
                probe=tasks.every(lambda: self.pause_s, waking.recorder.probe),
                purge=tasks.every(5.0, self._purge),
                recheck=tasks.whenever(self.reloaded, waking.reader.recheck),
                counts=tasks.every(lambda: self.pause_s, lambda: waking.store_counts(self._count)),
            ):
                await waking.loader.has_taken.wait()
                return await story(self)

        return self.loop.run_until_complete(main())

    async def _purge(self):
        await self.store.purge(self.shards.terms.keys(), self.clock.wall_ms, self.waking.sending.lines.is_over)

    async def _count(self, counts):
        self.counted.update({alert_id: each.pushed for alert_id, each in counts.items()})
        return True

    def phone(self, name, metres, *args, **more):
        """Add a phone, which has not registered yet."""
        self.phones.append(Phone(self, name, metres, *args, **more))
        return self.phones[-1]

    def publish(self, entry):
        """Have all processes read an entry from the log."""
        self.log.setdefault(entry.id, []).append(entry)
        self.reader._apply(entry, ())
        self._other_reader._apply(entry, ())

    def answer(self, who, *outcomes, **more):
        """Set the next answers of a host, or to a phone."""
        self.services.answers[who] = [PostResponse(each, each.value, more.get("retry_after_s")) for each in outcomes]

    def leaks(self):
        """Return what is wrong with the limits when no request is under way."""
        sending = self.waking.sending
        gates = {"slots": sending.queues.slots, "spare": sending.queues.spare, **sending.queues.lanes}
        found = [f"{name}: {gate.under_way} under way" for name, gate in gates.items() if gate.under_way]
        found += [f"{name}: {gate.coming} coming" for name, gate in gates.items() if gate.coming]
        found += [f"{sending.queues.waiting()} waiting"] * (sending.queues.waiting() > 0)
        found += [f"{each.state} {each.digest.hex()}" for each in self.waking.devices if each.state.name != "IDLE"]
        found += ["not idle"] * (not sending.idle.is_set())
        if len(self.waking.fanout) != len(self.waking.devices):
            found.append(f"{len(self.waking.fanout)} rows of {len(self.waking.devices)} devices")
        if sum(each.devices for each in sending.queues.lanes.values()) < len(self.waking.devices):
            found.append("devices of hosts miscounted")
        found += [f"fails: {self.waking.fanout.failing()}"] * (self.waking.fanout.failing() > 0)
        return found

    def close(self):
        """Close the loop."""
        for each in asyncio.all_tasks(self.loop):
            each.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


def small_limits(monkeypatch):
    """Let few devices reach the limits."""
    monkeypatch.setattr(queues, "SLOTS", 3)
    monkeypatch.setattr(queues, "SPARE_SLOTS", 2)
    monkeypatch.setattr(service_limits, "AT_MOST", 3)
    monkeypatch.setattr(service_limits, "BAD", 2)


def revision(alert_id, number=1, metres=0, radius_m=1000, **changes):
    """Return a revision around a place in metres north of Dallas."""
    return a_revision(alert_id, number, area=(Circle(DALLAS[0] + metres * METRE, DALLAS[1], radius_m),), **changes)
