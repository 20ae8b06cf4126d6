"""The exact place of an incident, and of a subscriber, which must not leave the code that reads the request.

A canary coordinate is published, revised, refused and tried in a dry run. Then everything that the node wrote or sent
is searched for it: SQLite files, log output at DEBUG, metrics, frames and answers.
"""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import h3
import pytest
from end_to_end.kit.alerts import alert, circle, place, revision_of
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session
from end_to_end.kit.traces import assert_found_nowhere, digests, spellings

Join = Callable[..., Session]

CENTRE = (41.8739154237, -87.6391748261)
RADIUS = 1_237.8461
MOVED = (41.8839154719, -87.6291748353)
PHONE = (41.8751638297, -87.6402917463)
HOME_CELL = h3.latlng_to_cell(41.8722613571, -87.6377182649, 14)


def traces() -> dict[bytes, str]:
    """Return the bytes that must not be found anywhere, each with what it would reveal."""
    found: dict[bytes, str] = {}
    for name, point in {"centre": CENTRE, "moved centre": MOVED, "phone": PHONE}.items():
        for axis, number in zip(("lat", "lng"), point, strict=True):
            found |= dict.fromkeys(spellings(number), f"{name} {axis}")
        for resolution in (12, 13, 14, 15):
            found[h3.latlng_to_cell(*point, resolution).rstrip("f").encode()] = f"{name} cell"
    for resolution in (13, 14):
        found[h3.cell_to_parent(HOME_CELL, resolution).encode()] = "the cell of a phone"
    found |= {b"1237.8": "radius", struct.pack("<d", RADIUS): "radius", struct.pack(">d", RADIUS): "radius"}
    return found


@pytest.fixture
def talkative(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """Start a node that logs at the level `debug`."""
    with Node(tmp_path, keys, GEOCAST_LOG_LEVEL="debug") as node:
        yield node


def test_exact_places_are_in_no_message_answer_file_log_line_or_metric(talkative: Node, join: Join):
    """Only the published circle is stored or sent (protocol, section 2)."""
    node = talkative
    sessions = [join(node, place(PHONE, accuracy_m=7), {"cell": HOME_CELL}, fmt=fmt) for fmt in FORMATS]
    body = alert(CENTRE, area=circle(CENTRE, RADIUS), description="x" * 400)
    answers, content = publish_in_every_way(node, body)
    for session in sessions:
        session.listen(body["id"], "cancel")
        session.move(place(PHONE))
        session.say({"type": "move", "places": [place(PHONE), {"cell": HOME_CELL, "accuracy_m": 1}]})
        assert session.take()["code"] == "bad-field"
    seen = {"answers": answers, "frames": b"\n".join(frame for s in sessions for frame in s.frames)}
    seen["metrics"] = node.api.get("/metrics").content
    seen |= {path.name: path.read_bytes() for path in node.home.glob("geocast.db*")}
    node.terminate()
    seen |= {f"{path.name} later": path.read_bytes() for path in node.home.glob("geocast.db*")}
    seen["output"] = node.output().encode()
    assert_found_nowhere(traces() | digests(content), seen)
    assert body["id"].encode() in seen["frames"], "the frames do not even have the alert's id"
    assert any(body["id"].encode() in data for name, data in seen.items() if name.startswith("geocast.db"))


def publish_in_every_way(node: Node, body: dict[str, object]) -> tuple[bytes, bytes]:
    """Send good and bad requests with a circle. Return their answers, and the bytes of the first request."""
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | bearer(node.desk)
    path = f"/v1/alerts/{body['id']}"
    moved = revision_of(body, 2, area=[circle(CENTRE, RADIUS), circle(MOVED, RADIUS)])
    answers = [
        node.post("/v1/alerts", body, dry_run="true"),
        node.api.post("/v1/alerts", content=content, headers=headers),
        node.api.post("/v1/alerts", content=content, headers=headers),
        node.post("/v1/alerts", body | {"area": circle(MOVED, RADIUS)}),
        node.post("/v1/alerts", body | {"area": circle(CENTRE, RADIUS) | {"street": str(CENTRE)}}),
        node.post("/v1/alerts", body | {"area": circle((CENTRE[0], -1_000 + CENTRE[1]), RADIUS)}),
        node.post("/v1/alerts", body | {"area": circle((str(CENTRE[0]), CENTRE[1]), RADIUS)}),
        node.post("/v1/alerts", body | {"area": circle(CENTRE, -RADIUS), "category": str(CENTRE[1])}),
        node.api.post("/v1/alerts", content=content[:-1], headers=headers),
        node.post(f"{path}/revisions", moved),
        node.get(path),
        node.get("/v1/alerts"),
    ]
    node.cancel(str(body["id"]), 3)
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 201, 200, 409, 422, 422, 422, 422, 400, 201, 200, 200]
    return b"\n".join(answer.content for answer in answers), content


def test_search_for_exact_places_finds_one_in_a_log_line():
    line = {"log": f"refused {CENTRE}".encode(), "bytes": struct.pack(">2d", *CENTRE)}
    with pytest.raises(AssertionError, match="centre lat"):
        assert_found_nowhere(traces(), line)
