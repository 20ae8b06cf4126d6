"""From an alert to its frame: the messages that a client's own parser reads, in both formats."""

import dataclasses
import inspect
import json

import msgpack
import pytest
from support.fakes import NOON_MS, a_cancel, a_revision, a_warning, messages
from support.reviewers import AUDIENCE, jwks, proved
from support.schemas import check_server_message
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from client_demo.python.verify import Verifier
from geocast.model.alert import AlertText, Approval, Circle, Polygon
from geocast.wire import frames
from geocast.wire.frames import JSON, MSGPACK, PING, SIGNED, WIRES, alert_map, encode


def received(data):
    """Return the frames that a client's parser finds in `data`. The parser fails if a client must refuse a frame."""
    client = ClientProtocol(parse_uri("ws://localhost/v1/stream"), state=OPEN)
    client.receive_data(data)
    assert client.parser_exc is None
    return client.events_received()


def told(entry):
    """Return the messages of an entry as clients read them: (JSON, MessagePack)."""
    text, binary, *_ = encode(entry)
    [json_frame], [msgpack_frame] = received(text), received(binary)
    assert (json_frame.opcode, msgpack_frame.opcode) == (Opcode.TEXT, Opcode.BINARY)
    assert json_frame.fin
    assert msgpack_frame.fin
    return json.loads(json_frame.data.decode()), msgpack.unpackb(msgpack_frame.data)


def test_alert_message_has_exactly_the_documented_fields():
    """The message is the same in both formats (protocol, section 2)."""
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


def test_message_of_official_warning_has_additional_fields():
    """The message is in one language, and lists all languages (rules A22 and LA1)."""
    for text, language in enumerate(("en-CA", "fr-CA")):
        alert = alert_map(a_warning(), text)
        words = {"title", "headline", "description", "instruction", "area_desc"}
        assert {name: alert[name] for name in words} == {name: f"{name} in {language} revision 1" for name in words}
        assert (alert["language"], alert["languages"]) == (language, ["en-CA", "fr-CA"])
        assert (alert["urgency"], alert["certainty"], alert["web"]) == ("expected", "likely", "https://w.example/1")
        assert alert["onset_at"] == "2026-01-31T12:10:00.000Z"
    assert told(a_warning())[0]["alert"] == told(a_warning())[1]["alert"] == alert_map(a_warning(), 0)


def test_message_of_official_warning_omits_fields_that_were_not_given():
    """Omitted fields are never null (rules A22 and F2)."""
    bare = a_warning(
        "en", texts=(AlertText("en", "Flood", "Water"),), urgency=None, certainty=None, onset_at=None, web=None
    )
    assert alert_map(bare).keys() - alert_map(a_revision()).keys() == {"language", "languages"}


def test_message_of_alert_without_description_has_no_description_field():
    """The description is left out if it was not given (section 2), and never null (section 5)."""
    assert "description" not in told(a_revision())[0]["alert"]
    assert told(a_revision(description=""))[1]["alert"]["description"] == ""


@pytest.mark.parametrize("entry", [a_revision(), a_cancel()], ids=["alert", "cancel"])
def test_approval_and_threat_are_not_sent_to_subscribers(entry):
    """Subscribers never see them (protocol, section 2)."""
    for data in encode(entry):
        for word in (b"approv", b"reviewer", b"desk-7", b"threat", b"community", b"terms", b"location_resolution"):
            assert word not in data


def test_cancel_message_has_exactly_the_documented_fields():
    """The fields are type, id, revision, reason and cancelled_at (protocol, section 5, Messages)."""
    expected = {
        "type": "cancel",
        "id": "a-1",
        "revision": 3,
        "reason": "over",
        "cancelled_at": "2026-01-31T12:00:00.007Z",
    }
    assert told(a_cancel(revision=3, cancelled_at=NOON_MS + 7)) == (expected, expected)


def proved_entries():
    """Return an alert and a cancel with two valid signatures and one by an unknown reviewer."""
    names = ("r-1", "stranger", "r-3")
    return [proved(a_revision(description="Stay\naway – 🔥"), *names), proved(a_cancel(revision=3), *names)]


def test_signed_stream_sends_proof_instead_of_content():
    """Other streams are the same as without a proof (rule F9)."""
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
def test_verifying_client_reads_the_same_content_as_other_clients(number):
    """All fields are equal, except that `issued_at` is the time of the newest approval (rules C12 and C13)."""
    verifier = Verifier(json.loads(jwks()), AUDIENCE, approvals=2, cancel_approvals=2)
    for entry in proved_entries():
        [plain], [signed] = messages(encode(entry)[0]), messages(encode(entry)[number])
        found = verifier.read(signed)
        told, shown = (message.get("alert", message) for message in (plain, found))
        assert {name for name in told if told[name] != shown[name]} <= {"issued_at"}
        assert told.keys() == shown.keys()


def test_coordinates_and_radii_are_64_bit_floats_in_messagepack():
    """Whole numbers are sent as floats, too (protocol, section 5, Messages)."""
    _, binary, *_ = encode(a_revision(area=(Circle(1.0, -2.0, 1000.0),)))
    for name, value in [("lat", 1.0), ("lng", -2.0), ("radius_m", 1000.0)]:
        key = msgpack.packb(name)
        assert binary[binary.index(key) + len(key) :][:9] == msgpack.packb(value)
        assert msgpack.packb(value)[0] == 0xCB


@pytest.mark.parametrize("text", ["é", "😀 \u202e", '"\\/', "<script>", "\u2028", "a\nb"])
def test_texts_of_an_alert_are_sent_unchanged(text):
    """Texts are not trimmed or normalized, and are UTF-8 without escapes (protocol, section 2)."""
    by_json, by_msgpack = told(a_revision(headline=text, description=text))
    assert by_json["alert"]["headline"] == by_msgpack["alert"]["headline"] == text
    assert by_json["alert"]["description"] == by_msgpack["alert"]["description"] == text


@pytest.mark.parametrize("length", [1, 100, 1000, 70_000])
def test_client_reads_frames_of_any_length(length):
    """The length takes 7, 16 or 64 bits (RFC 6455, 5.2)."""
    assert [m["alert"]["headline"] for m in told(a_revision(headline="x" * length))] == ["x" * length] * 2


@pytest.mark.parametrize("size", [8, 125, 126, 127, 65_535, 65_536])
def test_frame_has_the_bytes_that_websockets_writes(size):
    """The length takes 7, 16 or 64 bits (RFC 6455, 5.2)."""
    message = {"a": "x" * (size - len('{"a":""}'))}
    payload = json.dumps(message, separators=(",", ":")).encode()
    assert len(payload) == size
    assert JSON.frame(message) == Frame(Opcode.TEXT, payload).serialize(mask=False)


def test_frames_are_the_same_for_every_connection():
    """Without extensions and masks one encoded frame serves all sessions of a format (rule S6)."""
    for data in (*encode(a_revision()), *encode(a_cancel()), PING):
        assert data[0] & 0x70 == 0
        assert data[1] & 0x80 == 0
    assert encode(a_revision()) == encode(a_revision())


def test_client_reads_several_frames_sent_in_one_write():
    """One WebSocket message holds one map (protocol, section 5, Messages)."""
    first, second = encode(a_revision())[0], encode(a_cancel())[0]
    assert [json.loads(frame.data)["type"] for frame in received(first + second + first)] == [
        "alert",
        "cancel",
        "alert",
    ]


def test_ping_is_a_websocket_ping_without_payload():
    """The server pings idle connections (rule W8)."""
    [ping] = received(PING)
    assert (ping.opcode, ping.data) == (Opcode.PING, b"")


def test_each_subprotocol_has_its_wire_format():
    """JSON has text frames, MessagePack has binary frames; both exist in a signed form (rules S6 and S7)."""
    assert [(wire.subprotocol, wire.opcode) for wire in WIRES] == [
        ("geocast.v1.json", Opcode.TEXT),
        ("geocast.v1.msgpack", Opcode.BINARY),
        ("geocast.v1.json.signed", Opcode.TEXT),
        ("geocast.v1.msgpack.signed", Opcode.BINARY),
    ]
    assert [wire.number for wire in WIRES] == [0, 1, 2, 3]


@pytest.mark.parametrize("entry", [a_revision(), a_cancel()], ids=["alert", "cancel"])
def test_signed_stream_sends_the_ordinary_frame_if_there_is_no_proof(entry):
    """The alert is not encoded again (rule F9)."""
    text, binary, *signed = encode(entry)
    assert signed[0] is text
    assert signed[1] is binary


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.subprotocol)
def test_loads_returns_the_message_that_frame_encoded(wire):
    """Each message is one map with `type` and its fields (protocol, section 5, Messages)."""
    message = {"type": "ok", "ref": 2**53 - 1, "live": 0, "é": ["x", 1.5, True]}
    [frame] = received(wire.frame(message))
    assert wire.loads(frame.data) == message
    assert messages(wire.frame(message)) == [message]


def test_frame_refuses_nan():
    """JSON has no NaN and no Infinity (RFC 8259)."""
    with pytest.raises(ValueError, match="Out of range"):
        JSON.frame({"type": "x", "value": float("nan")})


def test_alert_map_equals_the_alert_sent_to_subscribers():
    """The `alert` in GET responses is the one that subscribers are sent (protocol, section 4)."""
    revision = a_revision(approval=Approval("somebody", NOON_MS))
    assert alert_map(revision) == told(revision)[0]["alert"]


def test_encode_depends_only_on_its_entry_and_text():
    """Every node sends the same bytes (protocol, section 2)."""
    assert list(inspect.signature(frames.encode).parameters) == ["entry", "text"]
    assert MSGPACK.frame({"type": "pong"}) == MSGPACK.frame({"type": "pong"})


@pytest.mark.parametrize("corners", [(500,), (8,) * 62], ids=["one ring", "many shapes"])
def test_message_of_the_largest_official_warning_fits_into_48_kib(corners):
    """The longest texts of four-byte characters, with 500 corners or 64 shapes (rules F8 and P15)."""
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
