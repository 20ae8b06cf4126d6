"""Random input: every message is accepted or refused with a reason, without unexpected errors and in bounded time.

The examples of hypothesis are bounded, and are the same in each run.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest.cap.issuer import CAP, MINUTE_MS, RING, CapIngestHarness, a_message, an_info, element, time
from support.fakes import NOON_MS

from geocast.ingest.cap.decision import OUTCOMES
from geocast.model.alert import Cancel, Revision
from geocast.model.problems import Problem
from geocast.wire.frames import encode

pytestmark = pytest.mark.slow

bounded = settings(max_examples=300, deadline=None, derandomize=True, database=None)

GOOD = a_message("m", 0, ("x",), an_info(onset=time(5), web="https://a.example/"))
ODD = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "0", "-1", "nan", "1e400", "9" * 400, "\u202e", "a,b,c", "a,b,2026-01-31T12:00:00Z x", "1,2 3", RING]
    ),
)
TIMES = st.one_of(
    st.integers(-20_000, 20_000).map(time),
    st.sampled_from(["", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59-14:00", "1970-01-01T00:00:00+14:00", "noon"]),
)
NUMBER = st.floats(-400, 400, allow_nan=False).map(lambda number: f"{number:.4f}")
PAIR = st.tuples(NUMBER, NUMBER).map(",".join)
SHAPES = {
    "polygon": st.one_of(st.just(RING), st.lists(PAIR, min_size=3, max_size=12).map(" ".join), ODD),
    "circle": st.one_of(st.tuples(PAIR, NUMBER).map(" ".join), ODD),
    "geocode": st.just("<valueName>UGC</valueName><value>X</value>"),
}
WORDS = {
    "status": ["Actual", "Exercise", "Test", "Draft"],
    "msgType": ["Alert", "Update", "Cancel", "Ack"],
    "scope": ["Public", "Private"],
    "severity": ["Extreme", "Minor", "Unknown"],
    "urgency": ["Past", "Immediate"],
    "responseType": ["AllClear", "Shelter"],
    "category": ["Met", "Other"],
    "language": ["en", "de-AT", "fr"],
}


def escaped(text):
    """Return the text as XML, without characters that XML does not allow."""
    kept = "".join(
        each for each in text if each >= " " and each not in "\ufffe\uffff" and not "\ud800" <= each <= "\udfff"
    )
    return kept.replace("&", "&amp;").replace("<", "&lt;")


def fields(**strategies):
    """Return some of these elements, each with a value of its strategy or an unusual value."""
    choices = {name: st.one_of(st.none(), made, made, made, ODD.map(escaped)) for name, made in strategies.items()}
    return st.fixed_dictionaries(choices).map(lambda made: "".join(element(*each) for each in made.items()))


def words(*names):
    """Return one of the words for each of these elements."""
    return {name: st.sampled_from(WORDS[name]) for name in names}


AREA = fields(
    areaDesc=ODD.map(escaped),
    **{name: made.map(escaped) if name != "geocode" else made for name, made in SHAPES.items()},
)
INFO = st.tuples(
    fields(
        event=st.sampled_from(["Flood", "Tornado Warning", "Snow"]),
        expires=TIMES,
        onset=TIMES,
        headline=ODD.map(escaped),
        description=ODD.map(escaped),
        **words("language", "category", "severity", "urgency", "responseType"),
    ),
    st.lists(AREA, max_size=3),
).map(lambda made: made[0] + "".join(element("area", area) for area in made[1]))
MESSAGE = st.tuples(
    fields(
        identifier=st.sampled_from("abc"),
        sender=st.sampled_from(["s@x", "t@x"]),
        sent=st.integers(-30, 20).map(time),
        references=st.sampled_from(["s@x,a,x", "t@x,b,x s@x,c,x", "s@x,b,x"]),
        note=ODD.map(escaped),
        **words("status", "msgType", "scope"),
    ),
    st.lists(INFO, max_size=3),
).map(
    lambda made: f'<alert xmlns="{CAP}">{made[0]}{"".join(element("info", info) for info in made[1])}</alert>'.encode()
)


def taken(room, body, charset=None):
    """Return the answer, or a refusal that is the client's fault. Any other error fails the test."""
    try:
        answer = room.taken(body, charset)
    except Problem as problem:
        refusal = problem
    else:
        assert answer.outcome in OUTCOMES
        for entry in answer.stored:
            encode(entry)  # stored entries can be sent
        return answer
    assert 400 <= refusal.status < 500
    assert refusal.status != 422 or refusal.violations
    return None


@bounded
@given(
    st.binary(max_size=400),
    st.sampled_from([None, "utf-8", "utf-16", "utf-7", "latin-1", "idna", "undefined", "rot13"]),
)
def test_arbitrary_bytes_are_refused_without_unexpected_error(body, charset):
    """This holds for any charset (CP2, CP3)."""
    assert taken(CapIngestHarness(), body, charset) is None


@bounded
@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.binary(max_size=20))
def test_damaged_message_is_accepted_or_refused(at, cut, put):
    """A part of a valid message is removed or replaced (CP3 to CP6)."""
    taken(CapIngestHarness(), GOOD[:at] + put + GOOD[at + cut :])


@bounded
@given(MESSAGE)
def test_message_with_arbitrary_fields_is_accepted_or_refused_and_repeat_is_recognized(body):
    """An accepted message is answered with `repeated` the second time (CP5, CP10, CP21 to CP25)."""
    room = CapIngestHarness()
    first = taken(room, body)
    before = room.live()
    again = taken(room, body)
    assert (first is None) == (again is None)
    assert room.live() == before
    if first is not None and first.outcome == "published":
        assert (again.outcome, again.alerts) == ("repeated", first.alerts)


# ---- messages one after another ----------------------------------------------------------------------------------

NAMES = "abcd"
STEP = st.tuples(
    st.sampled_from(NAMES),
    st.integers(0, 6),  # sent
    st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
    st.sampled_from(["Alert", "Update", "Cancel"]),
    st.sampled_from([30, 60, 90]),  # expires
    st.integers(1, 2),  # blocks
)


def message(name, minutes, refers, kind, expires, blocks):
    """Return the message of a step."""
    infos = [an_info(headline=f"{name}{minutes}", expires=time(expires)), an_info(event="Fire", expires=time(expires))]
    said = infos[:blocks] if kind != "Cancel" else []
    return a_message(name, minutes, refers, *said, kind=kind)


@settings(bounded, max_examples=150)
@given(st.lists(STEP, min_size=1, max_size=6))
def test_arbitrary_messages_in_any_order_leave_consistent_log(steps):
    """No numbers are missing, replaced alerts have ended, and repeated messages end nothing newer (CP10 to CP20)."""
    room, took = CapIngestHarness(), []
    for step in steps:
        answer = taken(room, message(*step))
        if answer is not None and answer.outcome in ("published", "updated", "replaced"):
            took.append(step)
            told = {revision.id for revision in answer.alerts}
            assert told <= room.live().keys()
            assert not room.live().keys() & {cancel.id for cancel in answer.cancelled}
    holds_together([entry for _, entry in room.log._entries])
    for step in took:
        answer = taken(room, message(*step))
        assert answer.outcome == "repeated"
        assert not any(isinstance(entry, Revision) for entry in answer.stored)
        ended = [room.history(entry.id)[-2] for entry in answer.stored if not entry.is_tombstone]
        assert all(each.alert.approval.approved_at <= NOON_MS + step[1] * MINUTE_MS for each in ended)


def holds_together(entries):
    """Check that no numbers are missing, that no end moves earlier, and that every `into` is an id in the log."""
    ids = {entry.id for entry in entries}
    for alert_id in ids:
        chain = [entry for entry in entries if entry.id == alert_id]
        assert [entry.revision for entry in chain] == list(range(1, len(chain) + 1))
        assert not any(isinstance(entry, Cancel) for entry in chain[:-1])
        ends = [entry.ends_at for entry in chain]
        assert ends == sorted(ends)
        assert all(entry.into in ids | {""} for entry in chain if isinstance(entry, Cancel))
