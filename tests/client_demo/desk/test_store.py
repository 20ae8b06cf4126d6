"""What outlives the service."""

import stat

import pytest

from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.desk.queue import Queue
from client_demo.desk.source import as_recorded
from client_demo.desk.store import KEPT_MS, Store, StoreError
from client_demo.desk.triage import Policy

NOW = 1_800_000_000_000


@pytest.fixture
def opened(tmp_path):
    """`opened()`: the store in this test's folder, closed when the test is over."""
    stores = []

    def opening():
        stores.append(Store(tmp_path / "desk.db"))
        return stores[-1]

    yield opening
    for store in stores:
        store.close()


def decided_item():
    queue = Queue(Policy("p", {}, {}), "actual")
    item = queue.take(as_recorded(read_records("feed.csv", feed_text(SAMPLE)))[0])
    queue.set_aside(item, 1, "dismiss", "ann", NOW)
    return item


def test_what_was_decided_is_there_again(opened):
    """As it was."""
    item = decided_item()
    store = opened()
    store.save(item)
    store.save(item)
    store.close()
    assert opened().items(NOW) == [item]


def test_after_a_week_it_is_forgotten(opened):
    """DP17: it holds addresses."""
    store = opened()
    store.save(decided_item())
    assert len(store.items(NOW + KEPT_MS)) == 1
    assert store.items(NOW + KEPT_MS + 1) == []


def test_reviewers_keep_their_keys_and_those_who_left_lose_theirs(opened):
    """A link stays good across restarts."""
    store = opened()
    first = store.keys(["ann", "ben"])
    assert store.keys(["ann", "eve"])["ann"] == first["ann"]
    assert store.keys(["ben"])["ben"] != first["ben"]
    assert len(set(first.values())) == 2
    assert all(len(key) >= 32 for key in first.values())


def test_only_its_owner_may_read_the_file(opened, tmp_path):
    """DP17: keys and addresses are in it."""
    opened()
    assert stat.S_IMODE((tmp_path / "desk.db").stat().st_mode) == 0o600


def test_two_desks_do_not_share_a_file(opened):
    """Each would send what the other decided."""
    opened()
    with pytest.raises(StoreError, match="another desk is using it"):
        opened()


def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path):
    """One line says so."""
    path = tmp_path / "feed.csv"
    path.write_text("incident,reported_at,nature,lat,lng\n" * 100)
    with pytest.raises(StoreError, match=r"feed\.csv can't be used"):
        Store(path)
    assert path.read_text().startswith("incident")
    with pytest.raises(StoreError, match="can't be used"):
        Store(tmp_path / "absent" / "desk.db")
