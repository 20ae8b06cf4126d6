"""A node whose log is also written by a later release, with unknown kinds of entries and unknown shapes (rule G4)."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import msgpack
import pytest
from end_to_end.kit.alerts import Json, alert, ground, place, revision_of
from end_to_end.kit.cluster import on_one_redis
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.wire import PATIENCE
from support.redis_server import RedisServer, needs_redis

from geocast.alertlog import codec

MULTIPOLYGON = {"type": "MultiPolygon", "coordinates": [[[[-97.0, 32.0], [-96.0, 32.0], [-96.5, 33.0], [-97.0, 32.0]]]]}

Write = Callable[[str, int, str, int, bytes], None]
Shared = tuple[Node, Write, Callable[[str], bytes]]


def into_sqlite(path: Path) -> Write:
    """Return a function that writes entries into a SQLite log, as another process would."""

    def write(alert_id: str, revision: int, kind: str, ends_at: int, payload: bytes) -> None:
        checksum = codec.checksum(alert_id, revision, payload)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)",
                (alert_id, revision, ends_at, payload, checksum),
            )

    return write


def into_redis(server: RedisServer) -> Write:
    """Return a function that writes entries into a Redis log, as another process would."""
    from geocast.alertlog.redis_streams import scripts

    def write(alert_id: str, revision: int, kind: str, ends_at: int, payload: bytes) -> None:
        checksum = codec.checksum(alert_id, revision, payload)
        entry = (alert_id, revision, kind, ends_at, payload, checksum, f"{alert_id}/{revision}", 0, "")
        _, _, [what, *_] = server.command("EVAL", scripts.APPEND, 1, "{geocast}:", 0, 0, 0, *entry)
        assert what == b"stored"

    return write


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def both(request: pytest.FixtureRequest, keys: Keys, tmp_path: Path) -> Iterator[Shared]:
    """Yield a node, a function that writes an entry into its log, and a function that reads an entry's bytes."""
    if request.param == "sqlite":
        with Node(tmp_path, keys) as node:

            def read_file(alert_id: str) -> bytes:
                with closing(sqlite3.connect(node.log_file)) as db:
                    return bytes(db.execute("SELECT payload FROM entry WHERE id = ?", (alert_id,)).fetchone()[0])

            yield node, into_sqlite(node.log_file), read_file
    else:
        with on_one_redis(tmp_path, keys, ()) as cluster:
            redis = cluster.redis

            def read_stream(alert_id: str) -> bytes:
                place = redis.command("HGET", f"{{geocast}}:alert:{alert_id}", 1)
                [(_, fields)] = redis.command("XRANGE", "{geocast}:stream", place, place)
                return bytes(fields[b"p"])

            yield cluster.nodes[0], into_redis(redis), read_stream


def next_message(session: Session) -> Json:
    """Return the next message without checking it against today's schemas."""
    message: Json = json.loads(session.wire.recv_data().payload)
    return message


def asked(node: Node, path: str) -> httpx.Response:
    """Return an answer of the API without checking it against today's schemas."""
    return httpx.get(f"{node.api.base_url}{path}", headers=bearer(node.desk), trust_env=False, timeout=PATIENCE)


def test_node_skips_log_entries_of_unknown_kinds_and_sends_unknown_shapes_unchanged(
    both: Shared, join: Callable[..., Session]
) -> None:
    """The node behaves like this before and after a restart.

    Entries of unknown kinds are skipped, and an alert with an unknown shape is sent as it was stored (rules G1, G2,
    G4).
    """
    node, write, payload_of = both
    spot = ground()
    session = join(node, place(spot))
    body = alert(spot)
    node.publish(body)
    session.listen(body["id"], 1)
    fields = msgpack.unpackb(payload_of(body["id"]))
    ends_at, call, other = fields["expires_at"], f"{body['id']}.call", f"{body['id']}.poly"
    area = [MULTIPOLYGON, *fields["area"]]
    write(call, 1, "vigil", ends_at, msgpack.packb({"kind": "vigil", "sealed": b"\xff"}))
    write(body["id"], 2, "note", ends_at, msgpack.packb({"kind": "note"}))
    later = fields | {"id": other, "area": area, "rules": 2}
    write(other, 1, "revision", ends_at, msgpack.packb(later))
    told = next_message(session)
    assert (told["alert"]["id"], told["alert"]["area"]) == (other, area)
    node.restart()
    session = join(node, holding={body["id"]: 1})
    session.say({"type": "move", "places": [place(spot)]})
    assert next_message(session) == {"type": "ok", "live": 1}
    assert next_message(session) == told
    assert asked(node, f"/v1/alerts/{other}").json()["alert"] == told["alert"]
    assert [each["id"] for each in asked(node, "/v1/alerts").json()["alerts"]] == [body["id"], other]
    assert node.get(f"/v1/alerts/{call}").status_code == 404
    assert node.post("/v1/alerts", alert(spot, id=call)).json()["type"] == "/problems/id-conflict"
    assert node.post(f"/v1/alerts/{body['id']}/revisions", revision_of(body, 2)).json()["current"] == 2
    node.revise(revision_of(body, 3))
    node.cancel(body["id"], 4)
    node.cancel(other, 2)
    for alert_id, kind in ((body["id"], "alert"), (body["id"], "cancel"), (other, "cancel")):
        message = next_message(session)
        assert (message["type"], message.get("id") or message["alert"]["id"]) == (kind, alert_id)
    assert "geocast_log_quarantined_total 0.0" in node.get("/metrics").text
    node.assert_no_surprise()
    assert "set aside" not in node.output()
