"""Push processes are killed and paused while push services fail; each phone still gets all its pushes.

`FAULT_SEED` and `FAULT_SECONDS` choose another run; `make soak-faults MINUTES=30 ON=push` runs for long.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.fault_schedule import IS_LONG, TIMEOUT, judge, seconds, seeds
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.push_run import Processes, PushRun, policy_in
from end_to_end.kit.push_weather import Service, Weather
from end_to_end.kit.tls import Certificate
from end_to_end.kit.wire import PATIENCE
from support.push_service import PushPhone
from support.redis_server import RedisServer, needs_redis

CROWD = 10_000 if IS_LONG else 1_000
"""The number of phones in a fan-out."""

SECONDS = seconds(6)
pytestmark = TIMEOUT


@pytest.fixture
def services(certificate: Certificate, seed: int) -> Iterator[list[Service]]:
    """Yield two push services with the same weather, which decides their failures."""
    weather = Weather(random.Random(seed), hangs=IS_LONG)
    with ExitStack() as stack:
        yield [stack.enter_context(Service(certificate, weather)) for _ in range(2)]


@pytest.mark.slow
@seeds(1)
def test_every_phone_gets_its_pushes_although_the_push_process_is_killed_repeatedly(
    keys: Keys, tmp_path: Path, services: list[Service], seed: int
):
    """No alert or cancel is missed, none comes after the end, and only a kill repeats one (WPS3)."""
    options = policy_in(tmp_path)
    with Node(tmp_path, keys, *options) as node, Push(node, *services, options=options[:2]) as push:
        judge(PushRun(node, services, Processes([push]), seed, SECONDS))


@pytest.mark.slow
@seeds(2)
def test_every_phone_gets_its_pushes_although_push_workers_are_killed(
    keys: Keys, tmp_path: Path, services: list[Service], seed: int
):
    """Two workers share one file. The other worker goes on, and no phone gets a push from both (WPN1)."""
    options = policy_in(tmp_path)
    pushing = (*options[:2], "--workers", "2")
    with Node(tmp_path, keys, *options) as node, Push(node, *services, options=pushing) as push:
        judge(PushRun(node, services, Processes([push]), seed, SECONDS))


@pytest.mark.slow
@needs_redis
@seeds(3)
def test_every_phone_gets_its_pushes_although_one_of_two_processes_is_killed_or_paused(
    keys: Keys, tmp_path: Path, services: list[Service], seed: int
):
    """A process paused beyond its lease pushes nothing that the other has pushed meanwhile (WPN1, WPN2)."""
    options = policy_in(tmp_path)
    only = () if IS_LONG else ("process 0 killed", "process 1 paused")
    with Node(tmp_path, keys, *options) as node, RedisServer(tmp_path / "redis") as redis:
        pushing = (*options[:2], "--devices", redis.url)
        with Push(node, *services, options=pushing) as one, Push(node, *services, options=pushing) as other:
            judge(PushRun(node, services, Processes([one, other]), seed, SECONDS, *only))


def test_every_phone_gets_its_push_although_the_process_is_killed_while_sending(
    keys: Keys, tmp_path: Path, certificate: Certificate
):
    """The process is killed once while an alert is pushed and once while its cancel is (WPS3, WPS5).

    All phones sleep meanwhile, and wake up at the end.
    """
    with Node(tmp_path, keys) as node, Service(certificate, Weather(random.Random(0), bad=0)) as service:
        spot = ground()
        with Push(node, service, options=("--max-devices", str(CROWD))) as push:
            phones = [service.phone(asleep=True) for _ in range(CROWD)]
            took_s = register_all(push, phones, cell(spot))
            body = alert(spot)
            twice = []
            for happens in (lambda: node.publish(body), lambda: node.cancel(body["id"], 2)):
                before = [len(phone.requests) for phone in phones]

                def told(before: list[int] = before) -> int:
                    return sum(len(each.requests) > count for each, count in zip(phones, before, strict=True))

                happens()
                until(lambda told=told: told() >= CROWD / 4)  # type: ignore[misc]
                push.restart()
                until(lambda told=told: told() == CROWD)  # type: ignore[misc]
                until(lambda: push.metric("push_under_way") == 0)
                twice.append(sum(len(phone.requests) for phone in phones) - sum(before) - CROWD)
            print(f"\n{CROWD} registered in {took_s:.1f} s; told twice by a kill in each fan-out: {twice}")
            assert max(twice) <= 512
            assert {len({each.topic for each in phone.requests}) for phone in phones} == {1}
            for phone in phones:
                phone.wake()
            assert [phone for phone in phones if (phone.alerts(), phone.cancels()) != ([], [body["id"]])] == []
            push.assert_no_surprise()


def register_all(push: Push, phones: list[PushPhone], here: str) -> float:
    """Register all phones at one place, many at a time; return the duration in seconds."""
    started = time.monotonic()

    async def register(api: httpx.AsyncClient, turn: asyncio.Semaphore, phone: PushPhone) -> None:
        body = {"subscription": phone.subscription(), "places": [{"cell": here}]}
        async with turn:
            answer = await api.put(
                f"/v1/devices/{phone.name[:16]}", json=body, headers=bearer(push.token(sub=phone.name))
            )
        assert answer.status_code == 201, answer.text

    async def main() -> None:
        async with httpx.AsyncClient(base_url=push.api.base_url, timeout=PATIENCE, trust_env=False) as api:
            turn = asyncio.Semaphore(32)
            await asyncio.gather(*(register(api, turn, phone) for phone in phones))

    asyncio.run(main(), debug=False)
    return time.monotonic() - started


def until(holds: Callable[[], bool]) -> None:
    """Poll until the condition holds, for at most as long as a fan-out to all phones may take."""
    deadline = time.monotonic() + PATIENCE + CROWD * 0.02
    while not holds():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.05)
