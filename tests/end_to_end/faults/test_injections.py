"""Unexpected exceptions at random, in a node with two workers, `geocast push` and `geocast relay`.

They are thrown into a random task where it waits, or a random function that tasks call raises once. Nobody may be
missed, no cancel lost, each exception has to be in the log, and everything is ready again a minute later at most.
`make soak-injections MINUTES=10` runs for long.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.kit.fault_schedule import TIMEOUT, seconds, seeds
from end_to_end.kit.history import Outcome
from end_to_end.kit.load import HEAL_S, Habit, World, eventually
from end_to_end.kit.node import Node
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from end_to_end.kit.webhooks import SECRET, RelayProcess
from support.push_service import PushService

from client_demo.webhook_receiver import WebhookReceiver

SECONDS = seconds(8)
READY_S = 60.0  # from the last exception until everything is ready
PHONES, DESKS = 8, 2
pytestmark = TIMEOUT


def thrown(folder: Path) -> Counter[str]:
    """Return how often each exception was thrown."""
    return Counter(line for path in folder.glob("thrown-*") for line in path.read_text().splitlines())


def wrong_at(receiver: WebhookReceiver, world: World) -> list[str]:
    """Return the alerts of which a target was not told the newest state."""
    newest: dict[str, str] = {}
    for webhook in receiver.taken():
        newest[webhook.event["data"]["id"]] = f"{webhook.event['type']} {webhook.event['data']['revision']}"
    [live] = world.history.states.values()
    wrong = [f"{each} is live, {newest.get(each)}" for each, number in live.items() if not_at(newest.get(each), number)]
    for chain in world.history.chains.values():
        last = chain[-1]
        if last.cancels and last.outcome is Outcome.OK and last.ends > time.time():
            what = newest.get(last.id, "cancelled before it was told")
            wrong += [f"{last.id} is cancelled, {what}"] * ("cancelled" not in what)
    return wrong


def not_at(what: str | None, number: int | None) -> bool:
    """Return whether this is not the event of a revision."""
    return what is None or "cancelled" in what or not what.endswith(f" {number}")


@pytest.mark.slow
@seeds(1)
def test_nobody_is_missed_and_no_cancel_lost_under_random_exceptions(tmp_path: Path, seed: int):
    """Sessions, a phone that sleeps, and a webhook target end with what the log says."""
    folder = tmp_path / "faults"
    folder.mkdir()
    settings = {"GEOCAST_INJECTIONS": str(folder)}
    with (
        WebhookReceiver(SECRET) as receiver,
        PushService(make_certificate(tmp_path)) as service,
        Node(tmp_path, None, "--workers", "2", **settings) as node,
    ):
        world, relay = World([node], random.Random(seed)), RelayProcess(node, tmp_path / "relay", **settings)
        relay.targets(world.town, siren=receiver)
        with Push(node, service, **settings) as push, relay:
            phone = service.phone()
            push.register(phone, cell(world.town))
            processes = (node, push, relay)
            asyncio.run(torment(world, folder, seed, lambda: push.readiness() == relay.readiness() == 200))
            print(f"FAULT_SEED={seed}: {thrown(folder)}")
            wait_until(lambda: not wrong_at(receiver, world), lambda: f"{wrong_at(receiver, world)}")
            assert_all_logged(thrown(folder), processes)


async def torment(world: World, folder: Path, seed: int, others_ready: Callable[[], bool]) -> None:
    """Publish while exceptions are thrown; then wait until all clients hold what they should."""
    try:
        for number in range(PHONES):
            world.add_phone(f"phone {number}", Habit(moves=1.0 if number % 2 else 0.0))
        for number in range(DESKS):
            world.add_desk(f"desk {number}")
        (folder / "random").write_text(f"{seed}")
        await asyncio.sleep(SECONDS)
        (folder / "random").unlink()

        async def all_ready() -> bool:
            return await world.all_ready() and await asyncio.to_thread(others_ready)

        assert await eventually(all_ready, READY_S) is not None, "not ready again"
        await world.stop(*(f"desk {number}" for number in range(DESKS)))
        for desk in world.desks:
            await desk.repeat_until_answered(unknown=0.5)
        for client in world.phones:
            client.settle_down()

        async def caught_up() -> bool:
            world.assert_well()
            if not await world.read_states():
                return False
            world.read_phones()
            return bool(world.history.judge(finals_only=True))

        took = await eventually(caught_up, HEAL_S)
        assert took is not None, str(world.history.judge(finals_only=True))
        verdict = world.history.judge()
        verdict.duplicates = []  # what was written before an exception in the same slice is written again
        assert verdict, str(verdict)
    finally:
        await world.stop()
        for desk in world.desks:
            await desk.api.aclose()


def assert_all_logged(exceptions: Counter[str], processes: tuple[ServerProcess, ...]) -> None:
    """Require that exceptions were thrown, and that each is in the log of its process."""
    logged = sum(process.output().count(": Injected\n") for process in processes)
    assert logged >= exceptions.total() > 0, (logged, exceptions)
