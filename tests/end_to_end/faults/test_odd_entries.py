"""Entries with odd values, written into the log by somebody else, and every process that reads it.

One entry harms no other: after each odd entry come a good alert and a cancel, and sessions, `geocast push`, `geocast
relay` and the public feed get both (HD4).
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.phone import Phone
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.webhooks import SECRET, RelayProcess
from end_to_end.kit.wire import PATIENCE
from end_to_end.publishing.test_weather_apps import at_port
from feed.test_odd_entries import odd_entries
from support.fakes import DALLAS, a_cancel, a_revision
from support.ports import free_ports
from support.push_service import PushService

from client_demo.webhook_receiver import WebhookReceiver
from geocast.alertlog.sqlite import SqliteLog
from geocast.model.alert import Approval, Revision
from geocast.model.errors import GeocastError

pytestmark = pytest.mark.slow


def now(alert_id: str) -> Revision:
    """Return a revision that lives for half an hour from now."""
    now_ms = int(time.time() * 1000)
    return a_revision(
        alert_id,
        issued_at=now_ms,
        occurred_at=now_ms - 60_000,
        expires_at=now_ms + 1_800_000,
        approval=Approval("desk-7", now_ms - 30_000),
    )


async def write(log_file: Path) -> tuple[set[str], set[str]]:
    """Write odd and good entries into a log, and return the ids of the good alerts: the live and the cancelled ones."""
    log = SqliteLog(log_file)
    live, gone = set(), set()
    await log.start()
    try:
        for number, odd in enumerate(odd_entries(now)):
            good, cancelled = now(f"good-{number}"), now(f"gone-{number}")
            await log.append(good if number % 2 else cancelled)
            with contextlib.suppress(GeocastError, ValueError, OverflowError):
                await log.append(odd)
            await log.append(cancelled if number % 2 else good)
            await log.append(replace(a_cancel(cancelled.id), cancelled_at=good.issued_at, ends_at=good.ends_at))
            live.add(good.id)
            gone.add(cancelled.id)
    finally:
        await log.stop()
    return live, gone


def of_ours(ids: Iterable[str]) -> set[str]:
    """Return the ids of the good alerts among these."""
    return {each for each in ids if each.startswith(("good-", "gone-"))}


def test_good_alerts_and_cancels_beside_odd_entries_arrive_everywhere(
    keys: Keys, tmp_path: Path, service: PushService
) -> None:
    """In sessions, at phones by push, at webhooks and in the feed."""
    options = at_port(*free_ports(1))
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(Node(tmp_path, keys, *options))
        feed = stack.enter_context(httpx.Client(base_url=options[3], timeout=PATIENCE, trust_env=False))
        receiver = stack.enter_context(WebhookReceiver(SECRET))
        relay = RelayProcess(node, tmp_path / "relay")
        relay.targets(DALLAS, siren=receiver)
        stack.enter_context(relay)
        push = stack.enter_context(Push(node, service))
        pushed = service.phone()
        push.register(pushed, cell(DALLAS))
        url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
        phone = stack.enter_context(Phone(url, DALLAS, keys.token(scope=PHONE_SCOPE)))
        live, gone = asyncio.run(write(node.log_file))
        late = stack.enter_context(Phone(url, DALLAS, keys.token(scope=PHONE_SCOPE)))
        for each in (phone, late):
            wait_until(lambda each=each: of_ours(each.held()) == live, "the session has the live alerts")  # type: ignore[misc]

        def told() -> set[str]:
            return {each for each, _ in pushed.alerts()} - {*pushed.cancels()}

        service.until(lambda: live <= told() and not gone & told())
        receiver.until(lambda: all(receiver.taken(each) for each in live))

        def is_whole() -> bool:
            with contextlib.suppress(httpx.TransportError):
                answer = feed.get("/v1/alerts.geojson")
                if answer.status_code == 200:
                    document = answer.json()
                    live_there, gone_there = (
                        of_ours(each["id"] for each in document[n]) for n in ("features", "cancelled")
                    )
                    return (live_there, gone_there) == (live, gone)
            return False

        wait_until(is_whole, "the feed has all")
        node.restart()
        wait_until(is_whole, "the feed has all after a restart")
