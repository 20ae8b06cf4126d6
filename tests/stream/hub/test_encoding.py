"""An entry is encoded when somebody here is owed it for the first time, and once (ADR 1)."""

import pytest
from stream.hub.town import FAR_AWAY
from support.fakes import a_cancel, a_revision

from geocast.stream import hub
from geocast.wire.frames import MSGPACK, encode


@pytest.fixture
def encoded(monkeypatch):
    """The entries that the hub has had encoded, in order."""
    entries = []

    def noting(entry, text=0):
        entries.append(entry)
        return encode(entry, text)

    monkeypatch.setattr(hub, "encode", noting)
    return entries


def test_what_concerns_nobody_here_is_not_encoded(town, encoded):
    """Most alerts of a continent concern nobody of one process."""
    town.join(FAR_AWAY)
    town.publish(a_revision())
    town.publish(a_revision(revision=2))
    town.publish(a_cancel(revision=3))
    assert encoded == []


def test_what_concerns_many_is_encoded_once(town, encoded, small_slices):
    """For both formats, all slices, and whoever comes later."""
    crowd = [town.join(metres, wire=MSGPACK) if metres % 2 else town.join(metres) for metres in range(7)]
    town.publish(a_revision())
    crowd.append(town.join(0))
    town.publish(a_revision(revision=2))
    town.publish(a_cancel(revision=3))
    assert encoded == [a_revision(), a_revision(revision=2), a_cancel(revision=3)]
    assert all(peer.received() == ["welcome", "a-1/1", "a-1/2", "-a-1/3"] for peer in crowd)


def test_what_concerned_nobody_is_encoded_for_the_first_who_comes(town, encoded):
    """And not again for the second."""
    town.publish(a_revision())
    assert [town.join(0).received() for _ in range(2)] == [["welcome", "a-1/1"]] * 2
    assert encoded == [a_revision()]
