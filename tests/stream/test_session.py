"""The conversation with one subscriber, without socket and hub (protocol, section 5, "Messages" and mistakes)."""

import json

import msgpack
import pytest
from support.fakes import DALLAS, NOON_MS, FakeClock, FakePeer
from support.schemas import check_client_message, check_server_message

from geocast.auth.scopes import RECEIVE, SCOPES, TEST
from geocast.auth.tokens import Key, TokenVerifier, make_key, sign
from geocast.geometry.sphere import cell_from_string, cell_place
from geocast.matching.filters import EVERYTHING, Filter
from geocast.model import close_codes
from geocast.model.close_codes import SessionClosed
from geocast.model.times import format_time
from geocast.stream.session import MAX_REF, Session
from geocast.wire.frames import JSON, MSGPACK

PRIVATE, PUBLIC = make_key("k1")
KEYS = {"k1": Key(PUBLIC, "EdDSA")}
PLACE = {"lat": DALLAS[0], "lng": DALLAS[1]}
CELL = "89446c3a5afffff"  # of resolution 9, in Dallas
HOUR_S = 3600


class FakeHub:
    """The hub, as a session sees it.

    Purpose: to see what a session calls, in which order. Lies: the only session has row 5 (its place in the hub's
    tables), and no alert ever waits for it.
    """

    def __init__(self):
        self.heartbeat_s = 25
        self.called = []
        self.sent = []
        self.filter = EVERYTHING
        self.resting_until = None
        self.fanout = self.calls = self  # what a session asks its hub for

    def enter(self, peer, wire, places, wanted, rights, holding, now, here=None):
        self.called.append(("enter", places, wanted, dict(holding)))
        self.here = here
        self.rights, self.filter = rights, wanted
        return 5

    def move(self, row, places, here=None):
        self.called.append(("move", row, places))
        self.here = here

    def set_filter(self, row, wanted):
        self.called.append(("set_filter", row, wanted))
        self.filter = wanted

    def filter_of(self, row):
        return self.filter

    def set_rights(self, row, rights):
        self.called.append(("set_rights", row))
        self.rights = rights

    def acknowledge(self, row, alert_id, revision, now):
        self.called.append(("acknowledge", row, alert_id, revision))

    def accept(self, row, call_id, eta_s, now):
        self.called.append(("accept", row, call_id, eta_s))

    def decline(self, row, call_id):
        self.called.append(("decline", row, call_id))

    def report(self, row, call_id, state, now):
        self.called.append(("report", row, call_id, state))

    def rest_until(self, row, now):
        """Return until when the person rests; None if they don't."""
        return self.resting_until

    def reply_with_owed(self, row, reply, now):
        self.called.append(("reply_with_owed", row, reply["type"]))
        self.sent.append(reply | {"live": 0})

    def reply(self, row, message, now):
        self.called.append(("reply", row, message["type"]))
        self.sent.append(dict(message))


class Talk:
    """A session with everything around it."""

    def __init__(self, wire=JSON, required=False):
        self.clock = FakeClock()
        self.hub = FakeHub()
        self.session = Session(FakePeer(), wire, self.hub, TokenVerifier(KEYS, required=required))

    def say(self, message):
        """Send one message (a dict, or the raw payload); return the answers, or the close that ended the session.

        The answers are checked against their schemas, and the message too unless it was refused for its form.
        """
        said = message
        if isinstance(message, dict):
            message = (json.dumps if self.session.wire is JSON else msgpack.packb)(message)
        before = len(self.hub.sent)
        try:
            self.session.receive(message.encode() if isinstance(message, str) else message, self.clock.now())
        except SessionClosed as ended:
            if isinstance(said, dict) and ended.close in (close_codes.BAD_TOKEN, close_codes.NOT_ALLOWED):
                check_client_message(said)
            return ended.close
        answers = self.hub.sent[before:]
        for answer in answers:
            check_server_message(answer)
        if isinstance(said, dict) and not any(answer["type"] == "error" for answer in answers):
            check_client_message(said)
        return answers


def hello(**fields):
    """Return a `hello`."""
    return {"type": "hello", "places": [], **fields}


def token(sub="phone", scopes=(RECEIVE,), lifetime_s=HOUR_S, key=PRIVATE):
    """Return a token that was issued at noon."""
    return sign(key, sub, scopes, NOON_MS // 1000, lifetime_s)


@pytest.fixture
def talk():
    """A session that has said `hello`, on a node that requires no token."""
    talk = Talk()
    talk.say(hello())
    talk.hub.called.clear()
    return talk


# ---- hello ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [JSON, MSGPACK], ids=["json", "msgpack"])
def test_hello_is_answered_with_welcome(wire):
    """The `welcome` has the name of the session, the time, `live`, `heartbeat_s` and `retry` (M11)."""
    talk = Talk(wire)
    [welcome] = talk.say(hello(places=[PLACE]))
    assert isinstance(welcome.pop("session"), str)
    assert welcome == {
        "type": "welcome",
        "now": "2026-01-31T12:00:00.000Z",
        "live": 0,
        "heartbeat_s": 25,
        "retry": {"min_ms": 1_000, "max_ms": 30_000},
        "languages": [],
    }
    assert talk.session.row == 5


def test_each_welcome_has_a_different_session_id():
    """The field `session` is opaque to clients (M11)."""
    names = {Talk().say(hello())[0]["session"] for _ in range(20)}
    assert len(names) == 20


def test_hello_registers_places_filter_and_the_alerts_that_the_client_has():
    """The hub has them before `welcome` is sent (M1)."""
    talk = Talk()
    talk.say(hello(places=[PLACE], holding={"a-1": 2}, categories=["arson", "arson"], min_severity="severe"))
    assert talk.hub.called == [
        ("enter", [(*DALLAS, 0.0)], Filter(frozenset({"arson"}), 2), {"a-1": 2}),
        ("reply_with_owed", 5, "welcome"),
    ]


def test_hello_without_a_filter_selects_all_alerts():
    """The filter is optional (M1)."""
    talk = Talk()
    talk.say(hello())
    assert talk.hub.called[0] == ("enter", [], EVERYTHING, {})


def test_hello_registers_languages_and_welcome_repeats_them_normalized():
    """The most wanted comes first, and each once, whatever its case (LA2)."""
    talk = Talk()
    [welcome] = talk.say(hello(languages=["de-AT", "EN", "de-at", "zh-Hant-TW", "en"]))
    assert welcome["languages"] == ["de-at", "en", "zh-hant-tw"]
    assert talk.hub.filter == Filter(None, 0, ("de-at", "en", "zh-hant-tw"))
    assert Talk(MSGPACK).say(hello(languages=[]))[0]["languages"] == []


def test_hello_with_an_empty_list_of_categories_selects_only_extreme_alerts():
    """A filter has 0 to 64 categories (M10)."""
    talk = Talk()
    talk.say(hello(categories=[]))
    assert talk.hub.filter == Filter(frozenset(), 0)


def test_hello_with_a_valid_token_opens_the_session():
    """The `welcome` says when the token expires (M11)."""
    talk = Talk(required=True)
    [welcome] = talk.say(hello(token=token()))
    assert welcome["token_expires_at"] == "2026-01-31T13:00:00.000Z"
    assert talk.hub.rights.deadline == talk.clock.monotonic + HOUR_S
    assert not talk.hub.rights.may_test


def test_test_alerts_are_visible_only_with_the_test_scope():
    """Without a token, test alerts are never visible, not even with --dev (R6)."""
    talk = Talk()
    talk.say(hello(token=token(scopes=(RECEIVE, TEST))))
    assert talk.hub.rights.may_test
    talk = Talk()
    talk.say(hello())
    assert not talk.hub.rights.may_test
    assert talk.hub.rights.deadline == float("inf")


# ---- places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (PLACE, (*DALLAS, 0.0)),
        (PLACE | {"accuracy_m": 25}, (*DALLAS, 25.0)),
        (PLACE | {"accuracy_m": 0}, (*DALLAS, 0.0)),
        (PLACE | {"accuracy_m": 2000.0}, (*DALLAS, 2000.0)),
        ({"lat": 90, "lng": -180}, (90.0, -180.0, 0.0)),
        ({"lat": -90, "lng": 180}, (-90.0, 180.0, 0.0)),
        ({"cell": CELL}, cell_place(cell_from_string(CELL))),
        ({"cell": "87446c3a5ffffff"}, cell_place(cell_from_string("87446c3a5ffffff"))),
    ],
    ids=str,
)
def test_place_given_as_point_or_cell_is_registered_with_its_accuracy_radius(talk, place, expected):
    """`accuracy_m` is 0 to 2,000; a cell has a resolution of 7 to 15 (M7, M8)."""
    assert talk.say({"type": "move", "places": [place]}) == [{"type": "ok", "live": 0}]
    assert talk.hub.called == [("move", 5, [expected]), ("reply_with_owed", 5, "ok")]


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"lat": 1},
        {"lng": 1},
        {"lat": 90.1, "lng": 0},
        {"lat": 0, "lng": -180.1},
        {"lat": "1", "lng": 0},
        {"lat": True, "lng": 0},
        {"lat": None, "lng": 0},
        PLACE | {"accuracy_m": -1},
        PLACE | {"accuracy_m": 2000.1},
        PLACE | {"accuracy_m": True},
        PLACE | {"accuracy_m": None},
        PLACE | {"name": "home"},
        PLACE | {"cell": CELL},
        {"cell": CELL, "accuracy_m": 5},
        {"cell": CELL.upper()},
        {"cell": "0" + CELL},
        {"cell": CELL[:-1]},
        {"cell": "86446c3a7ffffff"},
        {"cell": "fffffffffffffff"},
        {"cell": int(CELL, 16)},
        {"cell": None},
        [32.7, -96.8],
        "home",
        None,
        5,
    ],
    ids=str,
)
def test_malformed_place_is_refused(talk, place):
    """The answer is `bad-field`, and nothing of the message is applied (X7)."""
    for places in ([place], [PLACE, place]):
        [error] = talk.say({"type": "move", "places": places})
        assert (error["type"], error["code"]) == ("error", "bad-field")
    assert [call[0] for call in talk.hub.called] == ["reply", "reply"]


def test_session_may_have_at_most_8_places(talk):
    """A `move` has the whole list (M1)."""
    assert talk.say({"type": "move", "places": []})[0]["type"] == "ok"
    assert talk.say({"type": "move", "places": [PLACE] * 8})[0]["type"] == "ok"
    assert talk.say({"type": "move", "places": [PLACE] * 9})[0]["code"] == "bad-field"


# ---- filter, token, ack, ping --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"categories": ["arson"]}, Filter(frozenset({"arson"}), 2, ("sv",))),
        ({"categories": []}, Filter(frozenset(), 2, ("sv",))),
        ({"categories": None}, Filter(None, 2, ("sv",))),
        ({"min_severity": "extreme"}, Filter(frozenset({"robbery"}), 3, ("sv",))),
        ({"min_severity": "minor"}, Filter(frozenset({"robbery"}), 0, ("sv",))),
        ({"min_severity": None}, Filter(frozenset({"robbery"}), 0, ("sv",))),
        ({"categories": None, "min_severity": None, "languages": None}, EVERYTHING),
        ({"categories": ["x" * 64] * 64, "min_severity": "moderate"}, Filter(frozenset({"x" * 64}), 1, ("sv",))),
        ({"languages": ["fr-CA", "en"]}, Filter(frozenset({"robbery"}), 2, ("fr-ca", "en"))),
        ({"languages": []}, Filter(frozenset({"robbery"}), 2)),
        ({"languages": None}, Filter(frozenset({"robbery"}), 2)),
    ],
    ids=["some", "none", "all", "extreme", "minor", "any", "clear", "both", "languages", "none wanted", "any language"],
)
def test_filter_message_keeps_omitted_fields_and_null_clears_them(talk, fields, expected):
    """Each of the three fields can be changed alone (M3, LA2)."""
    talk.hub.filter = Filter(frozenset({"robbery"}), 2, ("sv",))
    assert talk.say({"type": "filter", **fields}) == [{"type": "ok", "live": 0}]
    assert talk.hub.called == [("set_filter", 5, expected), ("reply_with_owed", 5, "ok")]


def test_new_token_of_the_same_sub_replaces_the_rights():
    """The last accepted token is the one that counts (M4, T6)."""
    talk = Talk(required=True)
    talk.say(hello(token=token()))
    talk.hub.called.clear()
    fresh = token(scopes=(RECEIVE, TEST), lifetime_s=2 * HOUR_S)
    assert talk.say({"type": "token", "token": fresh, "ref": 1}) == [{"type": "ok", "ref": 1, "live": 0}]
    assert talk.hub.called == [("set_rights", 5), ("reply_with_owed", 5, "ok")]
    assert talk.hub.rights.may_test
    assert talk.hub.rights.deadline == talk.clock.monotonic + 2 * HOUR_S


def test_ack_is_passed_to_the_hub_and_gets_no_answer(talk):
    """An `ack` has an id and a revision (M5)."""
    assert talk.say({"type": "ack", "id": "a-1", "revision": 2}) == []
    assert talk.hub.called == [("acknowledge", 5, "a-1", 2)]


def test_ping_is_answered_with_the_time(talk):
    """The answer is `pong`, with `ref` if the ping had one (M15)."""
    talk.clock.advance(1.5)
    assert talk.say({"type": "ping"}) == [{"type": "pong", "now": "2026-01-31T12:00:01.500Z"}]
    assert talk.say({"type": "ping", "ref": "x"}) == [{"type": "pong", "now": "2026-01-31T12:00:01.500Z", "ref": "x"}]


@pytest.mark.parametrize("ref", ["x", "x" * 64, "é😀", 0, 1, MAX_REF])
@pytest.mark.parametrize(
    "message", [{"type": "ping"}, {"type": "move", "places": []}, {"type": "filter", "categories": []}]
)
def test_answer_repeats_the_ref_of_the_message_unchanged(talk, message, ref):
    """A `ref` is a string of 1 to 64 characters or an integer from 0 to 2^53-1 (F3)."""
    [answer] = talk.say(message | {"ref": ref})
    assert answer["ref"] == ref
    assert type(answer["ref"]) is type(ref)


@pytest.mark.parametrize("ref", ["", "x" * 65, -1, MAX_REF + 1, 1.0, True, None, [], {}, "\ud800"])
def test_error_about_a_malformed_ref_does_not_repeat_it(talk, ref):
    """The answer is `bad-field` (F3, X7)."""
    [error] = talk.say(json.dumps({"type": "ping", "ref": ref}))
    assert error["code"] == "bad-field"
    assert "ref" not in error


@pytest.mark.parametrize("name", ["a point", "a cell", "one shape"])
def test_unknown_field_named_like_a_discriminator_is_refused_like_any_other(talk, name):
    """The session goes on (X7)."""
    [error] = talk.say({"type": "ping", name: 1})
    assert (error["code"], error["detail"]) == ("bad-field", "/: is not a field of this object")
    [error] = talk.say({"type": "move", "places": [PLACE | {name: 1}]})
    assert error["detail"] == "/places/0: is not a field of this object"
    assert talk.say({"type": "ping"})[0]["type"] == "pong"


# ---- invalid messages, in the order of the protocol's table -----------------------------------------------------

BAD_TOKEN, MALFORMED, NOT_ALLOWED = close_codes.BAD_TOKEN, close_codes.MALFORMED, close_codes.NOT_ALLOWED
FIRST = [
    # the first message, whether a token is required, the close of the session (None if the session is welcomed)
    (b'{"type":"hello","places":"\xff"}', False, close_codes.BAD_UTF8),
    ('{"type":"hello","places":[],}', False, MALFORMED),
    ('{"type":"hello","places":[],"places":[]}', False, MALFORMED),
    ('{"type":"hello","places":[{"lat":NaN,"lng":0}]}', False, MALFORMED),
    ("[]", False, MALFORMED),
    ("{}", False, MALFORMED),
    ({"places": []}, False, MALFORMED),
    ({"type": 1, "places": []}, False, MALFORMED),
    ({"type": None}, False, MALFORMED),
    ({"type": "move", "places": []}, False, MALFORMED),
    ({"type": "ping"}, False, MALFORMED),
    ({"type": "shrug"}, False, MALFORMED),
    ({"type": "Hello", "places": []}, False, MALFORMED),
    ({"type": "hello"}, False, MALFORMED),
    (hello(places=None), False, MALFORMED),
    (hello(places=[PLACE] * 9), False, MALFORMED),
    (hello(places=[{"lat": 91, "lng": 0}]), False, MALFORMED),
    (hello(ref=1), False, MALFORMED),
    (hello(extra=1), False, MALFORMED),
    (hello(token=None), False, MALFORMED),
    (hello(token=5), False, MALFORMED),
    (hello(holding=None), False, MALFORMED),
    (hello(holding=[]), False, MALFORMED),
    (hello(holding={"a-1": 0}), False, MALFORMED),
    (hello(holding={"a-1": 1.0}), False, MALFORMED),
    (hello(holding={"a-1": 2**31}), False, MALFORMED),
    (hello(holding={"a 1": 1}), False, MALFORMED),
    (hello(holding={"": 1}), False, MALFORMED),
    (hello(holding={f"a-{n}": 1 for n in range(257)}), False, MALFORMED),
    (hello(holding={f"a-{n}": 1 for n in range(256)}), False, None),
    (hello(categories=None), False, MALFORMED),
    (hello(categories=["Arson"]), False, MALFORMED),
    (hello(categories=[""]), False, MALFORMED),
    (hello(categories=["x" * 65]), False, MALFORMED),
    (hello(categories=["x"] * 65), False, MALFORMED),
    (hello(categories="arson"), False, MALFORMED),
    (hello(min_severity=None), False, MALFORMED),
    (hello(min_severity="high"), False, MALFORMED),
    (hello(languages=None), False, MALFORMED),
    (hello(languages="en"), False, MALFORMED),
    (hello(languages=["en_US"]), False, MALFORMED),
    (hello(languages=["en\n"]), False, MALFORMED),
    (hello(languages=["en"] * 9), False, MALFORMED),
    (hello(languages=["abc-abcdefgh-abcdefgh-abcdefgh"] * 8), False, None),
    (hello(), True, BAD_TOKEN),
    (hello(token=""), True, BAD_TOKEN),
    (hello(token=""), False, BAD_TOKEN),
    (hello(token="x.y.z"), False, BAD_TOKEN),
    (hello(token=token(lifetime_s=-1)), True, BAD_TOKEN),
    (hello(token=token(lifetime_s=0)), True, BAD_TOKEN),
    (hello(token=token(key=make_key("k1")[0])), True, BAD_TOKEN),
    (hello(token=token(key=make_key("k9")[0])), True, BAD_TOKEN),
    (hello(token=token(scopes=("alerts:publish",))), True, NOT_ALLOWED),
    (hello(token=token(scopes=("alerts:publish",))), False, NOT_ALLOWED),
    (hello(token=token(scopes=(TEST,))), True, NOT_ALLOWED),
    (hello(token=token(scopes=())), True, NOT_ALLOWED),
    # The form of the message is checked before the token.
    (hello(token="x", places=[{}]), True, MALFORMED),
    (hello(token=token(scopes=()), extra=1), True, MALFORMED),
    # An expired token that also lacks the scope is refused as expired.
    (hello(token=token(scopes=(), lifetime_s=-1)), True, BAD_TOKEN),
    (hello(token=token(scopes=SCOPES)), True, None),
]


@pytest.mark.parametrize(("message", "required", "expected"), FIRST, ids=range(len(FIRST)))
def test_bad_first_message_ends_the_session(message, required, expected):
    """The first rule that applies counts; the shape is checked before the token (X1 to X5)."""
    talk = Talk(required=required)
    answer = talk.say(message)
    if expected is None:
        assert answer[0]["type"] == "welcome"
    else:
        assert answer is expected
        assert talk.hub.called == []
        assert talk.session.row == -1


LATER = [
    # a message after `hello`, and the close of the session or the code of the error
    (b'{"type":"\xff"}', close_codes.BAD_UTF8),
    ('{"type":"ping"', MALFORMED),
    ('{"type":"ping","type":"ping"}', MALFORMED),
    ('"ping"', MALFORMED),
    ("{}", MALFORMED),
    ({"type": ["ping"]}, MALFORMED),
    (hello(), MALFORMED),
    (hello(places=5), MALFORMED),
    ({"type": "shrug"}, "unknown-type"),
    ({"type": ""}, "unknown-type"),
    ({"type": "PING"}, "unknown-type"),
    ({"type": "welcome"}, "unknown-type"),
    ({"type": "move"}, "bad-field"),
    ({"type": "move", "places": {}}, "bad-field"),
    ({"type": "move", "places": [], "extra": 1}, "bad-field"),
    ({"type": "move", "places": [], "holding": {}}, "bad-field"),
    ({"type": "filter"}, "bad-field"),
    ({"type": "filter", "ref": 1}, "bad-field"),
    ({"type": "filter", "categories": "arson"}, "bad-field"),
    ({"type": "filter", "categories": [1]}, "bad-field"),
    ({"type": "filter", "min_severity": "high"}, "bad-field"),
    ({"type": "filter", "languages": "en"}, "bad-field"),
    ({"type": "filter", "languages": ["e"]}, "bad-field"),
    ({"type": "filter", "languages": ["en"] * 9}, "bad-field"),
    ({"type": "token"}, "bad-field"),
    ({"type": "token", "token": None}, "bad-field"),
    ({"type": "token", "token": token(), "extra": 1}, "bad-field"),
    ({"type": "token", "token": "x"}, BAD_TOKEN),
    ({"type": "token", "token": ""}, BAD_TOKEN),
    ({"type": "token", "token": token(lifetime_s=-1)}, BAD_TOKEN),
    ({"type": "token", "token": token(sub="somebody else")}, BAD_TOKEN),
    ({"type": "token", "token": token(sub="somebody else", scopes=())}, BAD_TOKEN),
    ({"type": "token", "token": token(scopes=(TEST,))}, NOT_ALLOWED),
    ({"type": "ack"}, "bad-field"),
    ({"type": "ack", "id": "a-1"}, "bad-field"),
    ({"type": "ack", "id": "a-1", "revision": 0}, "bad-field"),
    ({"type": "ack", "id": "a-1", "revision": 1.0}, "bad-field"),
    ({"type": "ack", "id": "a 1", "revision": 1}, "bad-field"),
    ({"type": "ack", "id": "a-1", "revision": 1, "ref": 1}, "bad-field"),
    ({"type": "ping", "now": 1}, "bad-field"),
]


@pytest.mark.parametrize(("message", "expected"), LATER, ids=range(len(LATER)))
def test_mistake_after_hello_closes_the_session_or_gets_an_error(message, expected):
    """The first rule that applies counts. After an `error` the session goes on, and nothing was applied (X1 to X7)."""
    talk = Talk(required=True)
    talk.say(hello(token=token()))
    talk.hub.called.clear()
    answer = talk.say(message)
    if isinstance(expected, str):
        assert [(m["type"], m["code"]) for m in answer] == [("error", expected)]
        assert talk.hub.called == [("reply", 5, "error")]
    else:
        assert answer is expected
        assert talk.hub.called == []


@pytest.mark.parametrize(
    "message", [{"type": "shrug", "places": 1}, {"type": "move", "ref2": 1}, {"type": "ack"}], ids=str
)
def test_error_repeats_the_ref_of_the_message(talk, message):
    """An error for a message without a `ref` has none (M16)."""
    assert talk.say(message | {"ref": "r-1"})[0]["ref"] == "r-1"
    assert "ref" not in talk.say(message)[0]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "31.4159265"},
        {"type": "move", "places": [{"lat": 31.4159265, "lng": 314.159265}]},
        {"type": "move", "places": [{"cell": "31.4159265"}]},
        {"type": "move", "places": [PLACE | {"31.4159265": 1}]},
        {"type": "ack", "id": "31.4159265 ", "revision": 1},
        {"type": "filter", "categories": ["31.4159265"]},
        {"type": "token", "token": ["31.4159265"]},
    ],
    ids=str,
)
def test_error_does_not_repeat_the_place_or_the_token_in_the_message(talk, message):
    """Places and tokens are repeated in no answer."""
    [error] = talk.say(message)
    assert "1415" not in json.dumps(error)


@pytest.mark.parametrize("field", ["token", "holding", "categories"])
def test_text_with_a_lone_surrogate_is_refused(field):
    """JSON is as strict as section 2 of the protocol says."""
    value = {"token": "\ud800", "holding": {"\ud800": 1}, "categories": ["\ud800"]}[field]
    assert Talk().say(json.dumps(hello(**{field: value}))) in (MALFORMED, BAD_TOKEN)


def test_error_names_the_invalid_field(talk):
    """The field `detail` of an error is for people (M16)."""
    [error] = talk.say({"type": "move", "places": [PLACE, {"lat": 1, "lng": "x"}]})
    assert "/places/1/lng" in error["detail"]


def test_token_of_another_sub_than_the_first_is_refused():
    """The first token of a session decides, even if `hello` had none (X4)."""
    talk = Talk()
    talk.say(hello())
    assert talk.say({"type": "token", "token": token("one")})[0]["type"] == "ok"
    assert talk.say({"type": "token", "token": token("two")}) is BAD_TOKEN


def test_refused_token_changes_nothing():
    """The last accepted token is the one that counts (T6)."""
    talk = Talk()
    talk.say(hello(token=token()))
    rights = talk.hub.rights
    talk.say({"type": "token", "token": token(scopes=(TEST,), lifetime_s=9 * HOUR_S)})
    assert talk.hub.rights is rights


def test_messagepack_coordinates_may_be_int_or_float_but_revision_must_be_int():
    """Where the protocol requires an integer, a float is refused."""
    talk = Talk(MSGPACK)
    as_float_32 = b"\x82\xa4type\xa4move\xa6places\x91\x82\xa3lat\xca\x42\x02\x00\x00\xa3lng\xd0\xf0"
    talk.say(hello())
    assert talk.say(as_float_32) == [{"type": "ok", "live": 0}]
    assert talk.hub.called[-2] == ("move", 5, [(32.5, -16.0, 0.0)])
    assert talk.say({"type": "ack", "id": "a-1", "revision": 1.0})[0]["code"] == "bad-field"


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\x90", b"\x80", b"\x81\xa4type\xc4\x04ping", b"\x81\xc4\x04type\xa4ping", b""]
)
def test_malformed_messagepack_ends_the_session(data):
    """The bytes are not strict MessagePack, not a map, or have no `type` that is a string (X2)."""
    talk = Talk(MSGPACK)
    talk.say(hello())
    assert talk.say(data) is MALFORMED


def test_messagepack_text_with_bad_utf8_is_malformed():
    """The close code 1007 is only for text frames (X1)."""
    assert Talk(MSGPACK).say(b"\x81\xa4type\xa1\xff") is MALFORMED


# ---- calls ---------------------------------------------------------------------------------------------------


def qualified(*quals, key_may=("cpr", "medic"), sub="phone"):
    """Return a session whose key may grant these qualifications, and a `hello` with a token that claims them."""
    talk = Talk()
    talk.session = Session(
        FakePeer(), JSON, talk.hub, TokenVerifier({"k1": Key(PUBLIC | {"quals": list(key_may)}, "EdDSA")})
    )
    return talk, hello(token=sign(PRIVATE, sub, (RECEIVE,), NOON_MS // 1000, HOUR_S, quals), places=[PLACE])


def test_welcome_names_the_qualifications_that_the_key_may_grant():
    """The window for reconnects of responders is shorter (RQ3, RQ8)."""
    talk, first = qualified("medic", "cpr", "triage")
    [welcome] = talk.say(first)
    assert welcome["quals"] == ["cpr", "medic"]
    assert welcome["retry"] == {"min_ms": 200, "max_ms": 3_000}
    assert "rest_until" not in welcome
    assert (talk.hub.rights.subject, talk.hub.rights.quals) == (("", "phone"), {"cpr", "medic"})
    talk, first = qualified("triage")
    [welcome] = talk.say(first)
    assert "quals" not in welcome
    assert welcome["retry"]["max_ms"] == 30_000


def test_welcome_says_until_when_a_responder_rests():
    """After a task the responder is not called for a while, and the client can say so (RQ7)."""
    talk, first = qualified("cpr")
    talk.hub.resting_until = NOON_MS + 600_000
    [welcome] = talk.say(first)
    assert welcome["rest_until"] == format_time(NOON_MS + 600_000)


@pytest.mark.parametrize("place", [PLACE, PLACE | {"accuracy_m": 5}, {"cell": CELL}], ids=str)
def test_one_place_may_be_marked_as_here(place):
    """A place marked as `here` is otherwise a place like any other.

    `false` is the same as an omitted field (RQ4, M8).
    """
    talk = Talk()
    talk.say(hello(places=[PLACE, place | {"here": True}, PLACE | {"here": False}]))
    assert talk.hub.here == 1
    assert len(talk.hub.called[0][1]) == 3
    talk.say({"type": "move", "places": [place]})
    assert talk.hub.here is None
    talk.say({"type": "move", "places": [place | {"here": True}]})
    assert talk.hub.here == 0


def test_two_places_marked_as_here_are_refused(talk):
    """The answer is `bad-field`, and nothing of the message is applied (RQ4)."""
    here = PLACE | {"here": True}
    [error] = talk.say({"type": "move", "places": [here, here], "ref": 3})
    assert (error["code"], error["ref"]) == ("bad-field", 3)
    assert error["detail"].startswith("/places: at most one place")
    assert ("move", 5) not in [call[:2] for call in talk.hub.called]


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ({"type": "accept", "id": "c-1"}, ("accept", 5, "c-1", None)),
        ({"type": "accept", "id": "c-1", "eta_s": 0}, ("accept", 5, "c-1", 0)),
        ({"type": "accept", "id": "c-1", "eta_s": 7_200}, ("accept", 5, "c-1", 7_200)),
        ({"type": "decline", "id": "c-1"}, ("decline", 5, "c-1")),
        ({"type": "report", "id": "c-1", "state": "aed"}, ("report", 5, "c-1", "aed")),
        ({"type": "report", "id": "c-1", "state": "arrived"}, ("report", 5, "c-1", "arrived")),
    ],
    ids=str,
)
def test_responder_messages_are_passed_to_the_hub(talk, message, asked):
    """An answer, if there is one, comes from the hub (M18, M19, M20)."""
    assert talk.say(message) == []
    assert talk.hub.called == [asked]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "accept"},
        {"type": "accept", "id": "c-1", "ref": 1},
        {"type": "accept", "id": "c-1", "eta_s": -1},
        {"type": "accept", "id": "c-1", "eta_s": 7_201},
        {"type": "accept", "id": "c-1", "eta_s": 1.5},
        {"type": "accept", "id": "c-1", "eta_s": True},
        {"type": "accept", "id": "c-1", "eta_s": None},
        {"type": "decline", "id": "no id"},
        {"type": "report", "id": "c-1"},
        {"type": "report", "id": "c-1", "state": "going"},
        {"type": "move", "places": [PLACE | {"here": 1}]},
        {"type": "move", "places": [{"here": True}]},
    ],
    ids=str,
)
def test_malformed_responder_message_is_answered_with_bad_field(talk, message):
    """The hub is not called (X7, M18 to M20, RQ4)."""
    [error] = talk.say(message)
    assert error["code"] == "bad-field"
    assert talk.hub.called == [("reply", 5, "error")]
