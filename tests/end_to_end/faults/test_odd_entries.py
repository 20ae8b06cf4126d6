"""Entries with odd values, written into the log by somebody else, and every process that reads it.

One entry harms no other: after each odd entry comes a good alert or a cancel, and sessions, `geocast push`, `geocast
relay`, `geocast ledger`, the public feed and weather apps get it (HD4).
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
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
from end_to_end.publishing.test_ledger import Writer
from end_to_end.publishing.test_weather_apps import at_port, client_of
from feed.test_odd_entries import odd_entries
from support.fakes import DALLAS, a_cancel, a_revision
from support.ports import free_ports
from support.push_service import PushService

from client_demo.webhook_receiver import WebhookReceiver
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.feed.areas import uuid_of
from geocast.model.alert import Approval, Cancel, Revision
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


async def write(log_file: Path, odd: Sequence[Revision], good: Sequence[Revision | Cancel]) -> None:
    """Write odd entries into a log, with a good one after each."""
    log = SqliteLog(log_file)
    await log.start()
    try:
        for strange, fine in zip(odd, good, strict=True):
            with contextlib.suppress(GeocastError, ValueError, OverflowError):
                await log.append(strange)
            assert await log.append(fine), fine.id  # otherwise the log is at fault, and no reader
    finally:
        await log.stop()


def of_ours(ids: Iterable[str]) -> set[str]:
    """Return the ids of the good alerts among these."""
    return {each for each in ids if each.startswith(("good-", "gone-"))}


def test_good_alerts_and_cancels_beside_odd_entries_arrive_everywhere(
    keys: Keys, tmp_path: Path, service: PushService
) -> None:
    """In sessions, at phones by push, at webhooks, in the feed, in the answers to weather apps, and in the ledger."""
    options = at_port(*free_ports(1))
    odd = odd_entries(now)
    count = len(odd) // 2
    good = [now(f"{'gone' if number % 2 else 'good'}-{number}") for number in range(count)]
    live, gone = ({each.id for each in good if each.id.startswith(kind)} for kind in ("good-", "gone-"))
    lat, lng = DALLAS
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(Node(tmp_path, keys, *options))
        feed = stack.enter_context(client_of(options))
        receiver = stack.enter_context(WebhookReceiver(SECRET))
        relay = RelayProcess(node, tmp_path / "relay")
        relay.targets(DALLAS, siren=receiver)
        stack.enter_context(relay)
        push = stack.enter_context(Push(node, service))
        pushed = service.phone()
        push.register(pushed, cell(DALLAS))
        writer = Writer(tmp_path / "ledger", f"sqlite:{node.log_file}")
        stack.callback(writer.kill)
        writer.run()
        url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
        phone = stack.enter_context(Phone(url, DALLAS, keys.token(scope=PHONE_SCOPE)))

        def webhooks(kind: str) -> set[str]:
            return {each.event["data"]["id"] for each in receiver.taken() if each.event["type"].endswith(kind)}

        asyncio.run(write(node.log_file, odd[:count], good))
        service.until(lambda: live | gone <= {each for each, _ in pushed.alerts()})
        receiver.until(lambda: live | gone <= webhooks("accepted"))
        cancels = [
            replace(a_cancel(each.id), cancelled_at=each.issued_at, ends_at=each.ends_at)
            for each in good
            if each.id in gone
        ]
        asyncio.run(write(node.log_file, odd[count : count + len(cancels)], cancels))
        late = stack.enter_context(Phone(url, DALLAS, keys.token(scope=PHONE_SCOPE)))
        for each in (phone, late):
            wait_until(lambda each=each: of_ours(each.held()) == live, "the session has the live alerts")  # type: ignore[misc]
        service.until(lambda: of_ours(pushed.cancels()) == gone)
        receiver.until(lambda: of_ours(webhooks("cancelled")) == gone)
        written = {("alert", each.id, 1) for each in good} | {("cancel", each, 2) for each in gone}
        wait_until(lambda: written <= {*writer.keys()}, "the ledger has all")
        writer.end()

        def is_whole() -> bool:
            with contextlib.suppress(httpx.TransportError):
                answer = feed.get("/v1/alerts.geojson")
                if answer.status_code == 200:
                    document = answer.json()
                    live_there, gone_there = (
                        of_ours(each["id"] for each in document[n]) for n in ("features", "cancelled")
                    )
                    near = {"min_lat": lat, "max_lat": lat, "min_lon": lng, "max_lon": lng}
                    named = {*feed.get("/alert/area", params=near).json()}
                    in_box = {each.id for each in good if uuid_of(each.id, 1) in named}
                    return (live_there, gone_there, in_box) == (live, gone, live)
            return False

        wait_until(is_whole, "the feed has all")
        node.restart()
        wait_until(is_whole, "the feed has all after a restart")
