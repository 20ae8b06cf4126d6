"""The attacks, one function each, and the table that names the rule against each.

Each attack can be made by a stranger, by somebody with a token of low privilege, or by somebody who can write to the
log. An attack counts in `wrong` what it got but must not get. Other modules judge whether the good parties (clients
that keep the rules) notice the attack (`parties.py`, `tally.py`).
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.faults.abuse.attacker import Attacker, Target, main
from end_to_end.faults.abuse.listener import Listener
from end_to_end.faults.abuse.parties import HAMLET, STATION, TOWN, cap_id
from end_to_end.kit.alerts import Json, approval, cancel_body, place, revision_of
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, call_at
from end_to_end.kit.earth import Point
from end_to_end.kit.proofs import Reviewer
from end_to_end.kit.push import cell
from end_to_end.kit.times import stamp
from end_to_end.kit.wire import frame, request_bytes, upgrade_headers
from jwt.utils import base64url_decode
from support.fakes import a_revision

from client_demo.python.subscription import Subscription
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.model.alert import Approval, Entry, Polygon
from geocast.model.call import CallEntry

SMALL_ANSWER = 100_000  # bytes; a list of 100 violations is always shorter

# ---- parts of attacks ----------------------------------------------------------------------------------------------


def zigzag(spot: Point, corners: int) -> list[Point]:
    """Return a thin zigzag band: a valid ring whose edges almost touch one another."""
    half = corners // 2
    step = 0.1 / half
    there = [(spot[0] + 0.05 * (n % 2), spot[1] + n * step) for n in range(half)]
    back = [(lat - 0.2 * step, lng) for lat, lng in reversed(there)]
    return [*there, *back, there[0]]


def polygon(points: list[Point]) -> Json:
    """Return a ring as a GeoJSON polygon."""
    return {"type": "Polygon", "coordinates": [[[round(lng, 6), round(lat, 6)] for lat, lng in points]]}


def coast(spot: Point, radius: float, corners: int, seed: float = 0) -> list[Point]:
    """Return a rough ring around a spot; `radius` is in degrees."""
    points = []
    for n in range(corners):
        angle = -2 * math.pi * n / corners
        reach = radius * (1 + 0.04 * math.sin(37 * angle + seed) + 0.03 * (n % 2))
        points.append((spot[0] + reach * math.sin(angle), spot[1] + reach * math.cos(angle)))
    return [*points, points[0]]


def cap_message(
    name: str,
    *rings: list[Point],
    kind: str = "Alert",
    refers: str = "",
    sent_s: float = -5,
    language: str = "en",
    more: str = "",
) -> str:
    """Return a CAP message of the aggregator about a flood within these rings."""
    texts = [" ".join(f"{lat:.6f},{lng:.6f}" for lat, lng in each) for each in rings]
    area = "".join(f"<polygon>{text}</polygon>" for text in texts)
    references = f"<references>evil@example.org,{refers},{cap_time(-600)}</references>" if refers else ""
    info = (
        f"<info><language>{language}</language><category>Met</category><event>Flood</event><urgency>Expected</urgency>"
        f"<severity>Severe</severity><certainty>Likely</certainty><expires>{cap_time(1_800)}</expires>"
        f"<headline>The river rises</headline>{more}<area><areaDesc>The river</areaDesc>{area}</area></info>"
    )
    return (
        f'<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>{name}</identifier>'
        f"<sender>evil@example.org</sender><sent>{cap_time(sent_s)}</sent><status>Actual</status>"
        f"<msgType>{kind}</msgType><scope>Public</scope>{references}{info if kind != 'Cancel' else ''}</alert>"
    )


def cap_time(seconds: float) -> str:
    """Return the time in so many seconds from now, in the format of CAP."""
    return stamp(seconds=seconds)[:19] + "+00:00"


def slow_post(path: str, headers: dict[str, str | None]) -> bytes:
    """Return the head of a POST and the first byte of its body, whose rest is never sent."""
    return request_bytes("POST", path, {"Host": "x", "Content-Length": "1000", **headers}) + b"{"


def reviewers(target: Target) -> list[Reviewer]:
    """Return the reviewers. Attacks let them sign one alert, and never a change that the attacker makes to it."""
    key = lambda each: Ed25519PrivateKey.from_private_bytes(base64url_decode(each["d"]))  # noqa: E731
    return [Reviewer(each["sub"], each["kid"], key(each)) for each in target.reviewers]


async def write(it: Attacker, entries: Iterable[Entry]) -> None:
    """Append entries to the log, as somebody does who can write to it."""
    url = it.target.log
    log = SqliteLog(Path(url.removeprefix("sqlite:"))) if url.startswith("sqlite") else RedisStreamsLog(url)
    await log.start()
    try:
        for stored in await asyncio.gather(*map(log.append, entries)):
            it.said[f"stored {stored}"] += 1
    finally:
        await log.stop()


async def register(it: Attacker, sub: str, number: int, url: str, where: Point) -> None:
    """Register a push device with an endpoint chosen by the attacker."""
    body = {"subscription": Subscription(url).to_map(), "places": [{"cell": cell(where)}]}
    path = f"{it.push}/v1/devices/evil-{it.seed}-{sub}-{number:08}"
    await it.ask("register", "PUT", path, it.token(f"{sub}-{it.seed}"), json=body)


# ---- approvals, issuers, history -----------------------------------------------------------------------------------


async def downgrade(it: Attacker) -> None:
    """Move a signed alert to a category without approvals and cancel it, both without signatures."""
    heard, settled = await it.watch()
    body = it.body("signed", category="hostage", approval=None)
    dry = await it.post("dry run", "/v1/alerts", body, dry_run="true")
    form = dry.json()["form"]
    signatures = [each.sign(form) for each in reviewers(it.target)]
    await it.post("signed", "/v1/alerts", body | {"approval": {"form": form, "signatures": signatures}})
    await settled()
    path = f"/v1/alerts/{body['id']}"
    plain = body | {"category": "burglary", "approval": approval()}

    async def try_all(number: int) -> None:
        for kind, answer in (
            ("revision", await it.post("revise", f"{path}/revisions", revision_of(plain, 2 + number % 3))),
            ("cancel", await it.post("cancel", f"{path}/cancel", cancel_body(2 + number % 3))),
        ):
            it.note(f"an unsigned {kind} of a signed alert was accepted", answer, below=300)

    await it.again(try_all, most=300)
    await settled()
    unsigned = [each for each in heard if each.startswith(f"{body['id']} ") and each != f"{body['id']} 1"]
    it.wrong["subscribers were sent what nobody had signed"] += len(unsigned)


async def two_issuers(it: Attacker) -> None:
    """Join with a responder's `sub` in a token of the issuer that must not grant qualifications; wait for a task."""

    def on_message(_listener: Listener, message: Json) -> None:
        it.wrong[f"a stranger was sent a {message['type']}"] += int(message["type"] in ("task", "call", "standdown"))

    for _ in range(3):
        await it.listen(it.other_token(it.target.responder), place(STATION, here=True), on_message=on_message)
    await it.wait()


async def rubbish_call(it: Attacker) -> None:
    """Append call entries to the log that no key decrypts."""
    ends_at = int(time.time() * 1_000) + 7_200_000
    await write(
        it,
        [
            CallEntry(f"evil-{it.seed}-{number}", 1, ends_at, "call", it.dice.randbytes(40), b"\0" * 80)
            for number in range(20)
        ],
    )

    async def ready(_: int) -> None:
        answer = await it.ask("readyz", "GET", f"{it.api}/readyz")
        it.note("rubbish in the log made the node unready", answer, from_status=300)
        await asyncio.sleep(0.2)

    await it.again(ready)


async def copied_row(it: Attacker) -> None:
    """Copy the row of a live alert to the next number of its chain.

    Then revise and cancel the alert as its publisher.
    """
    import sqlite3

    from geocast.alertlog import codec

    body = it.body("copied")
    await it.post("publish", "/v1/alerts", body)
    with sqlite3.connect(it.target.log.removeprefix("sqlite:"), timeout=10) as db:
        query = "SELECT ends_at, payload FROM entry WHERE id = ? AND revision = 1"
        [(ends_at, payload)] = db.execute(query, (body["id"],)).fetchall()
        row = (body["id"], 2, ends_at, payload, codec.checksum(body["id"], 2, payload))
        db.execute("INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)", row)
    db.close()
    number = 2
    for kind, path in (("revise", "revisions"), ("cancel", "cancel")):
        for _ in range(3):
            sent = revision_of(body, number) if kind == "revise" else cancel_body(number)
            answer = await it.post(kind, f"/v1/alerts/{body['id']}/{path}", sent)
            if answer is not None and answer.status_code == 409:
                number = answer.json()["current"] + 1
            else:
                break
        it.wrong[f"an alert with a copied row was refused: {kind}"] += int(answer is None or answer.status_code >= 300)
        number += 1


# ---- unfinished bodies, polygons and calls that use up limited resources -------------------------------------------


async def slow_bodies(it: Attacker) -> None:
    """Keep more requests open than the API accepts at once, with one publisher's token."""
    data = slow_post("/v1/alerts", {"Authorization": f"Bearer {it.desk}", "Content-Type": "application/json"})
    await it.again(lambda _: it.hold("slow body", it.target.api, data), at_once=2_050, most=20_000)


async def slow_cap(it: Attacker) -> None:
    """Send the heads of many CAP messages of one source, and never their bodies."""
    data = slow_post("/v1/cap", {"CAP-Webhook-Auth": it.target.cap_secret, "Content-Type": "application/xml"})
    await it.again(lambda _: it.hold("slow CAP", it.target.api, data), at_once=40, most=20_000)


async def zigzag_cap(it: Attacker) -> None:
    """Send CAP messages of one source whose polygons are zigzags of 279 KiB."""
    message = cap_message("NAME", zigzag(it.spot, 13_000))
    it.said["KiB of a message"] = len(message) // 1024
    await it.again(lambda n: it.cap("zigzag", message.replace("NAME", f"zigzag-{it.seed}-{n}")), at_once=16, most=2_000)


async def zigzag_alerts(it: Attacker) -> None:
    """Publish alerts with the largest zigzag polygons that a request body allows."""
    area = polygon(zigzag(it.spot, 2_400))
    await it.again(lambda n: it.post("zigzag", "/v1/alerts", it.body(f"z{n}", area=area)), at_once=16, most=2_000)


async def dry_runs(it: Attacker) -> None:
    """Request dry runs of large polygons, always eight at once."""
    area = polygon(coast(it.spot, 0.1, 2_400))
    ask = lambda n: it.post("dry run", "/v1/alerts", it.body(f"d{n}", area=area), dry_run="true")  # noqa: E731
    await it.again(ask, at_once=8)


async def feed_reads(it: Attacker) -> None:
    """Read the feed continuously without a token while a publisher makes large polygons live."""

    async def publish(number: int) -> None:
        shape = polygon(coast(it.spot, 5, 490, number))
        body = it.body(f"f{number}", category="flood", area=shape, expires_at=stamp(minutes=2))
        await it.post("publish", "/v1/alerts", body)

    async def read(number: int) -> None:
        path = ("alerts.geojson", "feed.atom")[number % 2]
        await it.ask("feed", "GET", f"{it.feed}/v1/{path}")

    await asyncio.gather(it.again(publish, at_once=2, most=1_000), it.again(read, at_once=4))


async def box_flood(it: Attacker) -> None:
    """Ask for the alerts in boxes as a weather app does, non-stop on 400 connections, while 600 polygons are live."""
    now_ms = int(time.time() * 1_000)
    fields = {
        "category": "flood",
        "approval": Approval("desk-evil", now_ms - 30_000),
        "occurred_at": now_ms - 60_000,
        "issued_at": now_ms,
        "expires_at": now_ms + 240_000,
    }
    rings = (tuple((lng, lat) for lat, lng in coast(it.spot, 5, 60, number)) for number in range(600))
    entries = [
        a_revision(f"evil-{it.seed}-box-{number}", area=(Polygon(ring, 1_000.0),), **fields)
        for number, ring in enumerate(rings)
    ]
    await write(it, entries)

    def request() -> bytes:
        lat, lng = (each + it.dice.uniform(-6, 6) for each in it.spot)
        box = f"min_lat={lat}&max_lat={lat + 0.002}&min_lon={lng}&max_lon={lng + 0.002}"
        return request_bytes("GET", f"/alert/area?{box}", {"Host": "x"})

    await it.again(lambda _: it.ask_again("box", it.target.feed, request), at_once=400)
    it.wrong["no box was answered"] += int(not it.said["box 200"])


async def open_calls(it: Attacker) -> None:
    """Open more than a thousand calls for help with one dispatcher's token."""
    token = it.token("cad-evil", DISPATCH_SCOPE)
    body = lambda n: call_at(it.spot, f"evil-{it.seed}-call-{n}")  # noqa: E731
    await it.again(lambda n: it.post("call", "/v1/calls", body(n), token), at_once=16, most=1_100)


async def history_reads(it: Attacker) -> None:
    """Read the state of alerts and the list of alerts as often as the API answers."""
    await it.post("publish", "/v1/alerts", it.body("read"))
    paths = (f"/v1/alerts/{it.body('read')['id']}", "/v1/alerts", "/v1/alerts/nobody-knows-this")
    read = lambda n: it.ask("read", "GET", f"{it.api}{paths[n % len(paths)]}", it.desk)  # noqa: E731
    await it.again(read, at_once=32)


async def publisher_flood(it: Attacker) -> None:
    """Publish and cancel as fast as the API answers, with one token."""

    async def life(number: int) -> None:
        body = it.body(f"p{number}")
        await it.post("publish", "/v1/alerts", body)
        await it.post("cancel", f"/v1/alerts/{body['id']}/cancel", cancel_body(2))

    await it.again(life, at_once=32, most=20_000)


async def bad_tokens(it: Attacker) -> None:
    """Use forged tokens at the API and at the stream."""
    forged = it.forged_token()

    async def knock(number: int) -> None:
        if number % 4:
            answer = await it.ask("forged", "POST", f"{it.api}/v1/alerts", forged, json={})
            it.note("a forged token was taken", answer, below=401)
        else:
            listener = await it.listen(forged)
            it.wrong["a forged token was welcomed"] += int(listener is not None)

    await it.again(knock, at_once=16)


# ---- CAP -----------------------------------------------------------------------------------------------------------


async def late_update(it: Attacker) -> None:
    """Send an Update after the Cancel of its chain, with an earlier `sent`."""
    heard, settled = await it.watch()
    area = coast(it.spot, 0.05, 12)

    async def chain(number: int) -> None:
        name = f"late-{it.seed}-{number}"
        await it.cap("alert", cap_message(name, area, sent_s=-60))
        await it.cap("cancel", cap_message(f"{name}-off", kind="Cancel", refers=name, sent_s=-10))
        await it.cap("update", cap_message(f"{name}-2", area, kind="Update", refers=name, sent_s=-30))
        await settled()
        late = cap_id("aggregator", "evil@example.org", f"{name}-2")
        it.wrong["an update older than its cancel was sent"] += sum(each.startswith(late) for each in heard)

    await it.again(chain, most=50)


async def rough_coast(it: Attacker) -> None:
    """Warn of an island with a rough coast and its islet: a large but legitimate message."""
    islet: Point = (it.spot[0] + 1, it.spot[1])

    async def warn(number: int) -> None:
        message = cap_message(f"coast-{it.seed}-{number}", coast(it.spot, 0.4, 900, number), coast(islet, 0.0022, 6))
        answer = await it.cap("coast", message)
        it.note("a warning was refused for its shape", answer, from_status=422, below=423)
        await asyncio.sleep(0.1)

    await it.again(warn, most=100)


async def rubbish_cap(it: Attacker) -> None:
    """Send broken XML, undeclared prefixes, and language tags as people misspell them."""
    good = cap_message("NAME", coast(it.spot, 0.05, 12))

    async def send(number: int) -> None:
        name = f"rubbish-{it.seed}-{number}"
        hidden = "<x:instruction>Go up the hill.</x:instruction>"
        answer = await it.cap("undeclared", cap_message(name, coast(it.spot, 0.05, 12), more=hidden))
        it.note("an undeclared prefix was taken", answer, below=300)
        language = ("en_US", "English", "deutsch")[number % 3]
        answer = await it.cap("language", cap_message(name, coast(it.spot, 0.05, 12), language=language))
        it.note("a language refused a whole message", answer, from_status=422, below=423)
        broken = bytearray(good.replace("NAME", f"{name}-b").encode())
        for _ in range(20):
            broken[it.dice.randrange(len(broken))] = it.dice.randrange(256)
        answer = await it.cap("broken", bytes(broken))
        it.note("the node has failed at a broken message", answer, from_status=500)

    await it.again(send, at_once=2, most=2_000)


async def huge_bad_cap(it: Attacker) -> None:
    """Send CAP messages of 0.9 MB with thousands of violations."""
    area = f"<area><polygon>{'?' * 50}</polygon></area>"
    info = f"<info><event>Flood</event><severity>?</severity><expires>x</expires>{area}</info>"
    head, tail = cap_message("NAME", coast(it.spot, 0.05, 12)).split("</info>")
    message = head + "</info>" + info * 6_500 + tail

    async def send(number: int) -> None:
        answer = await it.cap("huge", message.replace("NAME", f"huge-{it.seed}-{number}"))
        if answer is not None:
            it.said["bytes of the longest answer"] = max(it.said["bytes of the longest answer"], len(answer.content))
            it.wrong["an answer is longer than any list of 100 violations"] += int(len(answer.content) > SMALL_ANSWER)

    await it.again(send, at_once=4, most=500)


# ---- push ----------------------------------------------------------------------------------------------------------


async def dead_hosts(it: Attacker) -> None:
    """Register devices at hosts that do not exist, and five at a host that answers 507."""
    port = it.target.push_port

    async def some(number: int) -> None:
        sub = f"dead{number % 25}"
        await register(it, sub, number, f"https://h{number}-{it.seed}.push.test:{port}/push/x", HAMLET)

    async def full(number: int) -> None:
        url = f"https://{it.target.push_host}:{port}/push/evil-507-{it.seed}-{number}"
        await register(it, f"full{number}", number, url, HAMLET)

    await it.again(full, at_once=5, most=5)
    await it.again(some, at_once=8, most=200)
    await it.wait()


async def hanging_hosts(it: Attacker) -> None:
    """Register devices at hosts that accept requests and never answer."""

    async def some(number: int) -> None:
        host = f"up{number % 40}-{it.seed}.push.test" if "push.test" in it.target.push_host else it.target.push_host
        url = f"https://{host}:{it.target.push_port}/push/evil-0-{it.seed}-{number}"
        await register(it, f"hang{number % 50}", number, url, HAMLET)

    await it.again(some, at_once=8, most=400)
    await it.wait()


async def retry_after(it: Attacker) -> None:
    """Register devices whose push service answers 503 with Retry-After."""
    for number in range(5):
        url = f"https://{it.target.push_host}:{it.target.push_port}/push/evil-503-{it.seed}-{number}"
        await register(it, f"busy{number}", number, url, it.spot)
    await it.post("publish", "/v1/alerts", it.body("retry"))
    await it.wait()


async def registrations(it: Attacker) -> None:
    """Register devices as fast as possible with one subscriber's token."""

    async def put(number: int) -> None:
        url = f"https://{it.target.push_host}:{it.target.push_port}/push/none-{it.seed}-{number}"
        await register(it, "greedy", number, url, it.spot)

    await it.again(put, at_once=32)


# ---- attacks by subscribers and by clients without a token ---------------------------------------------------------


async def chatter(it: Attacker) -> None:
    """Move, filter, acknowledge, report and accept as fast as the node reads, in twenty sessions."""

    async def session(number: int) -> None:
        listener = await it.listen(it.token(f"chatter{number % 20}"), place(it.spot))
        for ref in range(2_000):
            if listener is None or listener.ended.done() or not it.goes_on():
                break
            lat, lng = it.dice.uniform(-40, -20), it.dice.uniform(0, 100)
            listener.say("move", ref=ref, places=[place((lat, lng), accuracy_m=900)] * 8)
            listener.say("filter", ref=ref, categories=[f"c{n}" for n in range(64)], min_severity="minor")
            for kind, fields in (
                ("ack", {"revision": 1}),
                ("report", {"state": "aed"}),
                ("accept", {}),
                ("decline", {}),
            ):
                listener.say(kind, id=f"nobody-{ref}", **fields)
            await asyncio.sleep(0.01)
        if listener is not None:
            it.said[f"ended with {listener.code if listener.ended.done() else 'the attack'}"] += 1
            listener.leave()

    await it.again(session, at_once=20, most=2_000)


async def connect_storm(it: Attacker) -> None:
    """Connect, send the largest allowed `hello` and disconnect, in forty parallel loops."""
    holding = {f"nobody-{n}": 1 for n in range(256)}

    async def visit(number: int) -> None:
        places = [place((it.dice.uniform(-40, -20), it.dice.uniform(0, 100)), accuracy_m=900) for _ in range(8)]
        token = it.token(f"storm{number % 50}")
        listener = await it.listen(token, *places, holding=holding)
        if listener is not None:
            listener.leave()

    await it.again(visit, at_once=40, most=5_000)


async def garbage_frames(it: Attacker) -> None:
    """Send invalid frames, invalid messages, and overlong ones of both."""
    pieces = (
        lambda: it.dice.randbytes(2_000),
        lambda: frame(0x1, b"{" * 16_000),
        lambda: frame(0x1, b'{"type":"hello","places":' + b"[" * 30_000),
        lambda: frame(0x1, b"x" * 1_000_000),
        lambda: frame(0x3, b"reserved"),
        lambda: frame(0x1, b"x", masked=False),
        lambda: frame(0x2, b"\xdf\xff\xff\xff\xff" * 100),
        lambda: frame(0x1, b"\xff\xfe"),
        lambda: b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"\0" * 4,
        lambda: frame(0x0, b"", fin=False) * 400,
    )

    async def send(number: int) -> None:
        head = request_bytes("GET", "/v1/stream", upgrade_headers("geocast.v1.json"))
        await it.hold("garbage", it.target.stream, head + pieces[number % len(pieces)]())

    await it.again(send, at_once=40, most=10_000)


async def slow_heads(it: Attacker) -> None:
    """Keep connections to every listener open with half a request head, without a token."""
    head = b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nX-Slow: "

    async def knock(number: int) -> None:
        others = (it.target.stream, it.target.feed, it.target.push)
        port = others[number % 3] if number % 4 == 0 else it.target.api
        await it.hold("slow head", port, head if number % 8 < 5 else b"", reads=number % 3 > 0)

    await it.again(knock, at_once=4_000, most=20_000)


async def slow_readers(it: Attacker) -> None:
    """Join in the town with a hundred sessions that never read."""
    for number in range(100):
        listener = await it.listen(it.token(f"deaf{number}"), place(TOWN))
        if listener is not None:
            listener.transport.pause_reading()
    await it.wait()


async def held_requests(it: Attacker) -> None:
    """Keep requests of every kind open while the node is stopped."""
    await asyncio.gather(
        *(
            it.again(lambda _, d=data: it.hold("held", it.target.api, d), at_once=20, most=20)
            for data in (
                slow_post("/v1/alerts", {"Authorization": f"Bearer {it.desk}", "Content-Type": "application/json"}),
                slow_post("/v1/cap", {"CAP-Webhook-Auth": it.target.cap_secret, "Content-Type": "application/xml"}),
                b"POST /v1/alerts HTTP/1.1\r\nHost: x\r\n",
            )
        ),
        zigzag_cap(it),
    )


# ---- the table of all attacks --------------------------------------------------------------------------------------


class Attack(NamedTuple):
    """A row of the table: the attack, and the rule that prevents it, or "" if no rule of the table does."""

    work: Callable[[Attacker], Awaitable[None]]
    rule: str
    at_least_s: float = 0.0
    only_on: str = ""

    @property
    def name(self) -> str:
        """The name that selects the attack, for example `zigzag-cap`."""
        return self.work.__name__.replace("_", "-")


ATTACKS = (
    Attack(downgrade, "HD1"),
    Attack(dead_hosts, "HD2", at_least_s=8),
    Attack(hanging_hosts, "HD2", at_least_s=4),
    Attack(slow_cap, "HD3"),
    Attack(zigzag_cap, "HD3"),
    Attack(zigzag_alerts, "HD3"),
    Attack(feed_reads, "HD4"),
    Attack(box_flood, "FA7", at_least_s=5),
    Attack(two_issuers, "HD5"),
    Attack(slow_bodies, "HD6", at_least_s=5),
    Attack(open_calls, "HD6"),
    Attack(dry_runs, "HD6"),
    Attack(history_reads, "HD6"),
    Attack(registrations, "HD6"),
    Attack(publisher_flood, "HD6"),
    Attack(rubbish_call, "HD8"),
    Attack(late_update, "HD9"),
    Attack(rough_coast, "HD10"),
    Attack(rubbish_cap, "HD11"),
    Attack(huge_bad_cap, "HD14"),
    Attack(copied_row, "HD15", only_on="sqlite"),
    Attack(retry_after, "HD19", at_least_s=8),
    Attack(bad_tokens, ""),
    Attack(chatter, ""),
    Attack(connect_storm, ""),
    Attack(garbage_frames, ""),
    Attack(slow_heads, "", at_least_s=6),
    Attack(slow_readers, ""),
)
DRAIN = Attack(held_requests, "HD14")

if __name__ == "__main__":
    main({each.name: each.work for each in (*ATTACKS, DRAIN)})
