"""Encoding: an alert is encoded once, when the first session of this process has to be sent it (ADR 1)."""

import pytest
from stream.hub.town import FAR_AWAY
from support.fakes import a_cancel, a_revision

from geocast.stream import hub
from geocast.wire.frames import MSGPACK, encode


@pytest.fixture
def encoded(monkeypatch):
    """A list of the entries that the hub has encoded, in order."""
    entries = []

    def noting(entry, text=0):
        entries.append(entry)
        return encode(entry, text)

    monkeypatch.setattr(hub, "encode", noting)
    return entries


def test_alert_without_recipients_is_not_encoded(town, encoded):
    """Most alerts of a continent concern no session of a given process."""
    town.join(FAR_AWAY)
    town.publish(a_revision())
    town.publish(a_revision(revision=2))
    town.publish(a_cancel(revision=3))
    assert encoded == []


def test_alert_is_encoded_once_for_all_sessions(town, encoded, small_slices):
    """All wire formats, all turns and all later sessions use the same frames."""
    crowd = [town.join(metres, wire=MSGPACK) if metres % 2 else town.join(metres) for metres in range(7)]
    town.publish(a_revision())
    crowd.append(town.join(0))
    town.publish(a_revision(revision=2))
    town.publish(a_cancel(revision=3))
    assert encoded == [a_revision(), a_revision(revision=2), a_cancel(revision=3)]
    assert all(peer.received() == ["welcome", "a-1/1", "a-1/2", "-a-1/3"] for peer in crowd)


def test_alert_is_encoded_when_its_first_recipient_connects(town, encoded):
    """For the second session the alert is not encoded again."""
    town.publish(a_revision())
    assert [town.join(0).received() for _ in range(2)] == [["welcome", "a-1/1"]] * 2
    assert encoded == [a_revision()]
