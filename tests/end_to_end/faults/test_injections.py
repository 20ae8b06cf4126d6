"""Unexpected exceptions at random, in a node with two workers, `geocast push`, `geocast relay` and `geocast fetch`.

They are thrown into a random task where it waits, or a random function that tasks call raises once. Nobody may be
missed or told twice, no cancel lost, each exception has to be in the log, and everything is ready again a minute later
at most. `make soak-injections MINUTES=10` runs for long.
"""

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import ground
from end_to_end.kit.earth import Point, inside
from end_to_end.kit.fault_schedule import TIMEOUT, seconds, seeds
from end_to_end.kit.feed_server import FeedServer, atom, linked
from end_to_end.kit.fetch import Fetch
from end_to_end.kit.history import Outcome
from end_to_end.kit.keys import bearer
from end_to_end.kit.load import HEAL_S, Habit, World, eventually
from end_to_end.kit.node import Node
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.push import Push, cell
from end_to_end.kit.side_process import SideProcess
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from end_to_end.kit.webhooks import SECRET, RelayProcess
from support.ports import free_ports
from support.push_service import PushPhone, PushService

from client_demo.webhook_receiver import WebhookReceiver

SECONDS = seconds(5)
READY_S = 60.0  # from the last exception until everything is ready
PHONES, DESKS, SLEEPERS = 8, 2, 4
pytestmark = TIMEOUT


def thrown(folder: Path) -> Counter[str]:
    """Return how often each exception was thrown."""
    return Counter(line for path in folder.glob("thrown-*") for line in path.read_text().splitlines())


class Town(World):
    """A town, and a feed of warnings for somewhere else, which a node gets from `geocast fetch`."""

    def __init__(self, node: Node, server: FeedServer, dice: random.Random) -> None:
        super().__init__([node], dice)
        self.server, self.river = server, ground()
        self.entries: list[str] = []
        self.warnings: set[str] = set()  # the headlines of those that are not cancelled
        self.live: set[str] = set()  # the headlines of the warnings that the node has
        server.pages["/met.atom"] = atom()

    async def warn(self) -> None:
        """Add a warning or the cancel of one to the feed, again and again."""
        for number in itertools.count():
            if self.warnings and self.dice.random() < 0.4:
                of = self.dice.choice(sorted(self.warnings))
                self.warnings.discard(of)
                name, message = f"end-of-{of}", warnings_of_cap.cancel(f"end-of-{of}", of)
            else:
                name = f"flood-{number}"
                message = warnings_of_cap.warning(name, self.river, "en", headline=name)
                self.warnings.add(name)
            self.entries.append(linked(name, self.server.message(name, message.encode())))
            self.server.pages["/met.atom"] = atom(*self.entries)
            await asyncio.sleep(self.dice.uniform(0.5, 1.0) * max(1.0, SECONDS / 100))

    async def read_states(self) -> bool:
        """Ask the node for its live alerts; set the warnings apart, which no desk has published."""
        if not await super().read_states():
            return False
        [(url, live)] = self.history.states.items()
        self.live = set()
        async with httpx.AsyncClient(trust_env=False, headers=bearer(self.desk_token)) as api:
            for each in [alert_id for alert_id in live if alert_id.startswith("cap.")]:
                del live[each]
                self.live.add((await api.get(f"{url}/v1/alerts/{each}")).json()["alert"]["headline"])
        return True

    def wrong_at(self, who: str, newest: dict[str, tuple[bool, int]], spot: Point | None = None) -> list[str]:
        """Return the alerts of which somebody was not told the newest state: by id, whether it is a cancel, and number.

        Whoever has a `spot` has to be told only the alerts there, and what follows on those.
        """
        [live] = self.history.states.values()
        wrong = []
        for alert_id, number in live.items():
            chain, told = self.history.chains[alert_id], newest.get(alert_id)
            area = next(each.area for each in chain if each.revision == number)
            concerned = told is not None or spot is None or inside([{"lat": spot[0], "lng": spot[1]}], area or [])
            if concerned and told != (False, number) and chain[-1].ends > time.time() + 1:
                wrong.append(f"{who}: {alert_id} is live with {number}, told {told}")
        for alert_id, chain in self.history.chains.items():
            last, told = chain[-1], newest.get(alert_id)
            if last.cancels and last.outcome is Outcome.OK and last.ends > time.time() and told and not told[0]:
                wrong.append(f"{who}: {alert_id} is cancelled, told {told}")
        return wrong


def told_by_webhooks(receiver: WebhookReceiver) -> dict[str, tuple[bool, int]]:
    """Return what a target was told last about each alert, but for warnings."""
    events = [webhook.event for webhook in receiver.taken()]
    return {each["data"]["id"]: ("cancelled" in each["type"], each["data"]["revision"]) for each in events}


def told_by_pushes(phone: PushPhone) -> dict[str, tuple[bool, int]]:
    """Return what a phone was told last about each alert."""
    newest = {}
    for message in phone.told:
        about = message["alert"] if message["type"] == "alert" else message
        newest[about["id"]] = message["type"] == "cancel", about["revision"]
    return newest


def unready(node: Node, *sides: SideProcess) -> list[str]:
    """Return what `/readyz` says in each process that is not ready."""
    answers = [api.get("/readyz") for api in (node.api, *(side.metrics_api for side in sides))]
    return [answer.text for answer in answers if answer.status_code != 200]


@pytest.mark.slow
@seeds(1)
def test_nobody_is_missed_and_no_cancel_lost_under_random_exceptions(tmp_path: Path, seed: int):
    """Sessions, phones that sleep, a webhook target and the warnings of a feed end with what the log and feed say."""
    folder = tmp_path / "faults"
    folder.mkdir()
    settings = {"GEOCAST_INJECTIONS": str(folder)}
    [feed_port] = free_ports(1)
    feed = ("--feed", f"127.0.0.1:{feed_port}", "--feed-url", "https://feed.example", "--feed-sender", "feed.example")
    options = (*warnings_of_cap.options(tmp_path), *feed, "--workers", "2")
    with (
        WebhookReceiver(SECRET) as receiver,
        FeedServer() as server,
        PushService(make_certificate(tmp_path)) as service,
        Node(tmp_path, None, *options, **settings) as node,
        Fetch(tmp_path, node, server, **settings) as fetch,
    ):
        town, relay = Town(node, server, random.Random(seed)), RelayProcess(node, tmp_path / "relay", **settings)
        relay.targets(town.town, siren=receiver)
        fetch.write_feeds("/met.atom")
        fetch.start()
        with Push(node, service, **settings) as push, relay:
            phones = {town.somewhere(): service.phone(asleep=bool(number % 2)) for number in range(SLEEPERS)}
            for spot, phone in phones.items():
                push.register(phone, cell(spot))
            sides = (push, relay, fetch)
            asyncio.run(torment(town, folder, seed, lambda: unready(node, *sides)))
            print(f"FAULT_SEED={seed}: {thrown(folder).total()} exceptions: {thrown(folder)}")

            def wrong() -> list[str]:
                found = town.wrong_at("siren", told_by_webhooks(receiver))
                for spot, phone in phones.items():
                    phone.wake()
                    found += town.wrong_at("sleeper", told_by_pushes(phone), spot)
                return found

            wait_until(lambda: not wrong(), lambda: "\n".join(wrong()))
            assert_all_logged(thrown(folder), (node, *sides))


async def torment(world: Town, folder: Path, seed: int, reasons: Callable[[], list[str]]) -> None:
    """Publish while exceptions are thrown; then wait until all clients hold what they should."""
    try:
        for number in range(PHONES):
            world.add_phone(f"phone {number}", Habit(moves=1.0 if number % 2 else 0.0))
        for number in range(DESKS):
            world.add_desk(f"desk {number}")
        world.start("warnings", world.warn())
        (folder / "random").write_text(f"{seed}")
        await asyncio.sleep(SECONDS)
        (folder / "random").unlink()

        async def all_ready() -> bool:
            return not await asyncio.to_thread(reasons)

        assert await eventually(all_ready, READY_S) is not None, reasons()
        await world.stop("warnings", *(f"desk {number}" for number in range(DESKS)))
        for desk in world.desks:
            await desk.repeat_until_answered(unknown=0.5)
        for client in world.phones:
            client.settle_down()

        async def caught_up() -> bool:
            world.assert_well()
            if not await world.read_states():
                return False
            world.read_phones()
            return bool(world.history.judge(finals_only=True)) and world.live == world.warnings

        took = await eventually(caught_up, HEAL_S)
        assert took is not None, f"{world.history.judge(finals_only=True)}, {world.live ^ world.warnings}"
        verdict = world.history.judge()
        assert verdict, str(verdict)
    finally:
        await world.stop()
        for desk in world.desks:
            await desk.api.aclose()


def assert_all_logged(exceptions: Counter[str], processes: tuple[ServerProcess, ...]) -> None:
    """Require that exceptions were thrown, and that each is in the log of its process."""
    # The last lines of what geocast logs, and of a traceback that asyncio logs.
    logged = sum(
        len(re.findall(r"(?:: |^support\.injections\.)Injected$", each.output(), re.MULTILINE)) for each in processes
    )
    assert logged >= exceptions.total() > 0, (logged, exceptions)
