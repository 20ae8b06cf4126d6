"""Alert to frame: what a client's own parser makes of the bytes, in both formats."""

import dataclasses
import inspect
import json

import msgpack
import pytest
from support.fakes import NOON_MS, a_cancel, a_revision, a_warning, messages
from support.reviewers import AUDIENCE, jwks, proved
from support.schemas import check_server_message
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from client_demo.python.verify import Verifier
from geocast.model.alert import AlertText, Approval, Circle, Polygon
from geocast.wire import frames
from geocast.wire.frames import JSON, MSGPACK, PING, SIGNED, WIRES, alert_map, encode


def received(data):
    """The frames that a client's parser finds in `data`; it fails on anything that a client has to refuse."""
    client = ClientProtocol(parse_uri("ws://localhost/v1/stream"), state=OPEN)
    client.receive_data(data)
    assert client.parser_exc is None
    return client.events_received()


def told(entry):
    """What a client of each format is told, as (JSON, MessagePack)."""
    text, binary, *_ = encode(entry)
    [json_frame], [msgpack_frame] = received(text), received(binary)
    assert (json_frame.opcode, msgpack_frame.opcode) == (Opcode.TEXT, Opcode.BINARY)
    assert json_frame.fin
    assert msgpack_frame.fin
    return json.loads(json_frame.data.decode()), msgpack.unpackb(msgpack_frame.data)


def test_an_alert_has_the_fields_of_the_protocol():
    """Section 2: what a subscriber is sent, in both formats the same."""
    by_json, by_msgpack = told(a_revision(description="Stay away.\nThank you.", source="desk.7"))
    assert by_json == by_msgpack
    assert by_json == {
        "type": "alert",
        "alert": {
            "id": "a-1",
            "revision": 1,
            "category": "robbery",
            "title": "Robbery",
            "headline": "Robbery, revision 1",
            "description": "Stay away.\nThank you.",
            "severity": "severe",
            "status": "actual",
            "source": "desk.7",
            "occurred_at": "2026-01-31T11:50:00.000Z",
            "issued_at": "2026-01-31T12:00:00.000Z",
            "expires_at": "2026-01-31T12:30:00.000Z",
            "area": [{"type": "circle", "lat": 32.7767, "lng": -96.797, "radius_m": 1000.0}],
        },
    }


def test_an_official_warning_has_what_no_publisher_can_send():
    """A22, LA1: in one language, which it names, beside all that there are."""
    for text, language in enumerate(("en-CA", "fr-CA")):
        alert = alert_map(a_warning(), text)
        words = {"title", "headline", "description", "instruction", "area_desc"}
        assert {name: alert[name] for name in words} == {name: f"{name} in {language} revision 1" for name in words}
        assert (alert["language"], alert["languages"]) == (language, ["en-CA", "fr-CA"])
        assert (alert["urgency"], alert["certainty"], alert["web"]) == ("expected", "likely", "https://w.example/1")
        assert alert["onset_at"] == "2026-01-31T12:10:00.000Z"
    assert told(a_warning())[0]["alert"] == told(a_warning())[1]["alert"] == alert_map(a_warning(), 0)


def test_what_an_official_warning_lacks_is_left_out():
    """A22, F2: never null."""
    bare = a_warning(
        "en", texts=(AlertText("en", "Flood", "Water"),), urgency=None, certainty=None, onset_at=None, web=None
    )
    assert alert_map(bare).keys() - alert_map(a_revision()).keys() == {"language", "languages"}


def test_a_description_is_left_out_when_there_is_none():
    """Section 2: left out when not given; section 5: never null."""
    assert "description" not in told(a_revision())[0]["alert"]
    assert told(a_revision(description=""))[1]["alert"]["description"] == ""


@pytest.mark.parametrize("entry", [a_revision(), a_cancel()], ids=["alert", "cancel"])
def test_neither_approval_nor_threat_is_sent(entry):
    """Section 2: never `approval` or `threat`."""
    for data in encode(entry):
        for word in (b"approv", b"reviewer", b"desk-7", b"threat", b"community", b"terms", b"location_resolution"):
            assert word not in data


def test_a_cancel_has_the_fields_of_the_protocol():
    """Section 5, messages: id, revision, reason, cancelled_at."""
    expected = {
        "type": "cancel",
        "id": "a-1",
        "revision": 3,
        "reason": "over",
        "cancelled_at": "2026-01-31T12:00:00.007Z",
    }
    assert told(a_cancel(revision=3, cancelled_at=NOON_MS + 7)) == (expected, expected)


def proved_entries():
    """An alert and a cancel that two have signed, and one of whom nobody here has heard."""
    names = ("r-1", "stranger", "r-3")
    return [proved(a_revision(description="Stay\naway – 🔥"), *names), proved(a_cancel(revision=3), *names)]


def test_what_has_a_proof_has_nothing_else_of_its_content_on_a_signed_stream():
    """F9: and on the others everything is as ever."""
    alert, cancel = proved_entries()
    for wire, data in zip(SIGNED, encode(alert)[2:], strict=True):
        [told] = messages(data)
        assert (wire.opcode, told.keys()) == (data[0] & 0x0F, {"type", "alert", "proof"})
        assert told["alert"] == {"id": "a-1", "revision": 1, "issued_at": "2026-01-31T12:00:00.000Z"}
        assert told["proof"] == alert.proof.to_map()
        check_server_message(told)
    for data in encode(cancel)[2:]:
        [told] = messages(data)
        assert told == {
            "type": "cancel",
            "id": "a-1",
            "revision": 3,
            "cancelled_at": "2026-01-31T12:00:00.000Z",
            "proof": cancel.proof.to_map(),
        }
        check_server_message(told)
    bare = [dataclasses.replace(entry, proof=None) for entry in (alert, cancel)]
    assert [encode(entry)[:2] for entry in (alert, cancel)] == [encode(entry)[:2] for entry in bare]


@pytest.mark.parametrize("number", [2, 3], ids=["json", "msgpack"])
def test_a_client_that_verifies_shows_what_the_others_do(number):
    """C12, C13: all of it, at the time of the newest approval."""
    verifier = Verifier(json.loads(jwks()), AUDIENCE, approvals=2, cancel_approvals=2)
    for entry in proved_entries():
        [plain], [signed] = messages(encode(entry)[0]), messages(encode(entry)[number])
        found = verifier.read(signed)
        told, shown = (message.get("alert", message) for message in (plain, found))
        assert {name for name in told if told[name] != shown[name]} <= {"issued_at"}
        assert told.keys() == shown.keys()


def test_coordinates_and_radii_are_float_64_in_messagepack():
    """Section 5, messages: the server sends coordinates and radii as float 64, whole ones too."""
    _, binary, *_ = encode(a_revision(area=(Circle(1.0, -2.0, 1000.0),)))
    for name, value in [("lat", 1.0), ("lng", -2.0), ("radius_m", 1000.0)]:
        key = msgpack.packb(name)
        assert binary[binary.index(key) + len(key) :][:9] == msgpack.packb(value)
        assert msgpack.packb(value)[0] == 0xCB


@pytest.mark.parametrize("text", ["é", "😀 \u202e", '"\\/', "<script>", "\u2028", "a\nb"])
def test_any_text_arrives_as_it_was_sent(text):
    """Section 2: nothing is trimmed or normalised; UTF-8, not escapes."""
    by_json, by_msgpack = told(a_revision(headline=text, description=text))
    assert by_json["alert"]["headline"] == by_msgpack["alert"]["headline"] == text
    assert by_json["alert"]["description"] == by_msgpack["alert"]["description"] == text


@pytest.mark.parametrize("length", [1, 100, 1000, 70_000])
def test_frames_of_any_length_are_read_by_a_client(length):
    """RFC 6455, 5.2: 7, 16 and 64 bit lengths."""
    assert [m["alert"]["headline"] for m in told(a_revision(headline="x" * length))] == ["x" * length] * 2


def test_frames_do_not_depend_on_the_connection():
    """S6: no extension, no mask, so one encoded frame serves every session of a format."""
    for data in (*encode(a_revision()), *encode(a_cancel()), PING):
        assert data[0] & 0x70 == 0
        assert data[1] & 0x80 == 0
    assert encode(a_revision()) == encode(a_revision())


def test_several_frames_may_go_in_one_write():
    """Section 5, messages: one WebSocket message holds one map."""
    first, second = encode(a_revision())[0], encode(a_cancel())[0]
    assert [json.loads(frame.data)["type"] for frame in received(first + second + first)] == [
        "alert",
        "cancel",
        "alert",
    ]


def test_a_ping_is_an_empty_ping():
    """W8: the server pings a connection to which nothing was written."""
    [ping] = received(PING)
    assert (ping.opcode, ping.data) == (Opcode.PING, b"")


def test_formats_are_told_apart_by_subprotocol():
    """S6, S7: `geocast.v1.json` with text frames, `geocast.v1.msgpack` with binary ones; each signed, too."""
    assert [(wire.subprotocol, wire.opcode) for wire in WIRES] == [
        ("geocast.v1.json", Opcode.TEXT),
        ("geocast.v1.msgpack", Opcode.BINARY),
        ("geocast.v1.json.signed", Opcode.TEXT),
        ("geocast.v1.msgpack.signed", Opcode.BINARY),
    ]
    assert [wire.number for wire in WIRES] == [0, 1, 2, 3]


@pytest.mark.parametrize("entry", [a_revision(), a_cancel()], ids=["alert", "cancel"])
def test_what_has_no_proof_is_the_same_frame_on_a_signed_stream(entry):
    """F9: not encoded again."""
    text, binary, *signed = encode(entry)
    assert signed[0] is text
    assert signed[1] is binary


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.subprotocol)
def test_a_message_is_read_as_it_was_written(wire):
    """Section 5, messages: each is one map with `type` and its fields beside it."""
    message = {"type": "ok", "ref": 2**53 - 1, "live": 0, "é": ["x", 1.5, True]}
    [frame] = received(wire.frame(message))
    assert wire.loads(frame.data) == message
    assert messages(wire.frame(message)) == [message]


def test_what_is_no_number_is_never_written():
    """RFC 8259: no NaN, no Infinity."""
    with pytest.raises(ValueError, match="Out of range"):
        JSON.frame({"type": "x", "value": float("nan")})


def test_publishers_see_what_subscribers_see():
    """Section 4, GET: `alert` is what a subscriber is sent."""
    revision = a_revision(approval=Approval("somebody", NOON_MS))
    assert alert_map(revision) == told(revision)[0]["alert"]


def test_encoding_takes_no_time_and_no_connection():
    """Section 2: every node sends the same bytes."""
    assert list(inspect.signature(frames.encode).parameters) == ["entry", "text"]
    assert MSGPACK.frame({"type": "pong"}) == MSGPACK.frame({"type": "pong"})


@pytest.mark.parametrize("corners", [(500,), (8,) * 62], ids=["one ring", "many shapes"])
def test_no_frame_of_an_official_warning_is_larger_than_48_kib(corners):
    """F8, P15: the longest texts, in letters of four bytes; 500 corners, or 64 shapes; the longest names."""
    wave, tag = "\U0001f30a", "abc-abcdefgh-abcdefgh-abcdefg"
    texts = tuple(AlertText(f"{tag}{n}", *(wave * size for size in (140, 300, 4_000, 2_000, 280))) for n in range(8))
    area = [Polygon(((-179.123456, -89.123456),) * (n + 1), 5_010.0) for n in corners]
    area += [Circle(-89.12345611192115, -179.12345552104106, 20_015_086.0)] * (64 - len(area) if len(area) > 1 else 0)
    longest = a_warning(
        alert_id="x" * 128, source="s" * 128, category="c" * 64, severity="moderate", urgency="immediate",
        certainty="possible", status="exercise", web="https://" + "w" * 990, area=tuple(area), texts=texts,
        headline=texts[0].headline, description=texts[0].description,
    )  # fmt: skip
    sizes = [len(frame) for text in range(8) for frame in encode(longest, text)]
    assert 38_000 < max(sizes) <= 48 * 1024
