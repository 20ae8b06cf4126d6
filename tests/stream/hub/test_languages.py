"""Alerts in several languages: each session is sent the text in its preferred language (LA1 to LA4)."""

import itertools

import pytest
from support.fakes import DALLAS, a_cancel, a_revision, a_warning

from geocast.matching.filters import Filter
from geocast.model.alert import Circle
from geocast.stream import hub
from geocast.wire.frames import MSGPACK, encode

WARNING = a_warning("en-CA", "fr-CA", "iu")


def wants(*tags, **others):
    """Return a filter that wants these languages, in lower case."""
    return Filter(languages=tags, **others)


def languages(peer):
    """Return the languages of the alerts that were sent since the last call; None for an alert without a language."""
    told = [message["alert"] for message in peer.take() if message["type"] == "alert"]
    assert all(alert.get("language") is None or f"in {alert['language']}" in alert["headline"] for alert in told)
    return [alert.get("language") for alert in told]


@pytest.fixture
def encoded(monkeypatch):
    """A list of what the hub has encoded, in order: id, number, and number of the text."""
    found = []

    def noting(entry, text=0):
        found.append((entry.id, entry.revision, text))
        return encode(entry, text)

    monkeypatch.setattr(hub, "encode", noting)
    return found


def test_each_session_is_sent_the_alert_in_its_preferred_language(town, small_slices):
    """The fan-out and the welcome choose in the same way, in both formats (LA1, LA3)."""
    tags = ["en-CA", "fr-CA", "iu", "en-CA", "fr-CA"]
    wanted = [wants(), wants("fr"), wants("es", "iu"), wants("es"), wants("fr-be", "en")]
    early = [town.join(n, wanted=each, wire=MSGPACK) for n, each in enumerate(wanted)]
    early += [town.join(n, wanted=each) for n, each in enumerate(wanted)]
    town.publish(WARNING)
    late = [town.join(wanted=each) for each in wanted]
    assert list(itertools.chain(*map(languages, early + late))) == tags * 3


def test_text_in_a_language_is_encoded_once_when_first_needed(town, encoded):
    """All formats of a language are encoded at the same time (LA4, ADR 1)."""
    for wanted in (wants("fr"), wants("fr-ca"), wants("es", "fr")):
        town.join(wanted=wanted)
        town.join(wanted=wanted, wire=MSGPACK)
    town.publish(WARNING)
    town.join(wanted=wants("fr"))
    assert encoded == [("a-1", 1, 1)]
    town.join(wanted=wants("pt"))
    assert encoded == [("a-1", 1, 1), ("a-1", 1, 0)]


def test_alert_with_at_most_one_language_is_sent_unchanged_to_all(town, encoded):
    """There is one frame for each format, whatever the sessions want (LA1)."""
    peers = [town.join(wanted=wants("fr")), town.join(), town.join(wanted=wants("en", "iu"))]
    town.publish(a_revision("a"))
    town.publish(a_warning("iu", alert_id="b"))
    assert encoded == [("a", 1, 0), ("b", 1, 0)]
    assert [languages(peer) for peer in peers] == [[None, "iu"]] * 3


def test_cancel_is_sent_in_one_language_to_all(town, encoded):
    """The reason of a cancel has only one language (LA4)."""
    peers = [town.join(wanted=wants("fr")), town.join(wanted=wants("iu"))]
    town.publish(WARNING)
    town.publish(a_cancel(reason="Fini"))
    assert [peer.take()[-1]["reason"] for peer in peers] == ["Fini"] * 2
    assert encoded == [("a-1", 1, 1), ("a-1", 1, 2), ("a-1", 2, 0)]


def test_changed_language_applies_to_alerts_that_are_not_sent_yet(town, small_slices):
    """An alert that was sent is not sent again.

    An alert whose fan-out is still running is sent in the new language (LA2, R2).
    """
    peers = [town.join(metres, wanted=wants("fr")) for metres in range(6)]
    town.deliver(WARNING)
    town.turn()
    first, *_, last = peers
    for peer in (first, last):
        town.set_filter(peer, wants("iu"))
    town.run()
    assert [languages(peer) for peer in peers] == [["fr-CA"]] * 5 + [["iu"]]
    town.publish(a_warning("en-CA", "fr-CA", "iu", revision=2))
    assert [languages(peer) for peer in peers] == [["iu"], *[["fr-CA"]] * 4, ["iu"]]


def test_language_is_chosen_separately_for_each_revision(town):
    """Revisions may have different languages (LA3)."""
    peer = town.join(wanted=wants("fr", "iu"))
    town.publish(WARNING)
    town.publish(a_warning("en-CA", "iu", revision=2))
    town.publish(a_revision(revision=3))
    assert languages(peer) == ["fr-CA", "iu", None]


def test_alerts_in_several_languages_are_sent_in_one_write(town):
    """Each alert is sent in the one of its languages that the session prefers (LA3)."""
    wanted = [wants(), wants("fr"), wants("de", "fr"), wants("it")]
    peers = [town.join(metres, wanted=each) for metres, each in enumerate(wanted * 2)]
    for peer in peers:
        peer.take()
        peer.writes.clear()
        peer._taken = 0
    town.deliver(
        a_warning("en", "fr", alert_id="a"), a_revision("b"), a_warning("de", "it", "fr", alert_id="c"),
        a_warning("es", alert_id="d", area=(Circle(*DALLAS, 900.0),)),
    )  # fmt: skip
    town.run()
    told = [{message["alert"]["id"]: message["alert"].get("language") for message in peer.take()} for peer in peers]
    common = {"b": None, "d": "es"}
    assert (
        told
        == [
            {"a": "en", "c": "de"} | common,
            {"a": "fr", "c": "fr"} | common,
            {"a": "fr", "c": "de"} | common,
            {"a": "en", "c": "it"} | common,
        ]
        * 2
    )


def test_session_that_is_no_longer_slow_is_sent_its_preferred_language(town):
    """The language also applies to alerts that are sent after a pause (LA3)."""
    peer = town.join(wanted=wants("fr"))
    town.hub.slowed(peer.row, town.clock.now())
    town.publish(WARNING)
    town.hub.on_drained(peer.row, town.clock.now())
    assert languages(peer) == ["fr-CA"]
