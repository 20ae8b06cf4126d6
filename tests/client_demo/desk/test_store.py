"""Tests of the data that the desk keeps over a restart."""

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
    """Return a function that opens the store in this test's folder; all stores are closed after the test."""
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


def test_decided_item_is_restored(opened):
    item = decided_item()
    store = opened()
    store.save(item)
    store.save(item)
    store.close()
    assert opened().items(NOW) == [item]


def test_item_is_deleted_after_a_week(opened):
    """Items contain addresses (rule DP17)."""
    store = opened()
    store.save(decided_item())
    assert len(store.items(NOW + KEPT_MS)) == 1
    assert store.items(NOW + KEPT_MS + 1) == []


def test_reviewer_keeps_the_key_until_removed(opened):
    """A link stays valid across restarts."""
    store = opened()
    first = store.keys(["ann", "ben"])
    assert store.keys(["ann", "eve"])["ann"] == first["ann"]
    assert store.keys(["ben"])["ben"] != first["ben"]
    assert len(set(first.values())) == 2
    assert all(len(key) >= 32 for key in first.values())


def test_file_is_readable_by_its_owner_only(opened, tmp_path):
    """The file contains keys and addresses (rule DP17)."""
    opened()
    assert stat.S_IMODE((tmp_path / "desk.db").stat().st_mode) == 0o600


def test_second_desk_on_one_file_is_refused(opened):
    """Otherwise each desk would send the decisions of the other."""
    opened()
    with pytest.raises(StoreError, match="another desk is using it"):
        opened()


def test_foreign_or_missing_file_is_refused_and_unchanged(tmp_path):
    path = tmp_path / "feed.csv"
    path.write_text("incident,reported_at,nature,lat,lng\n" * 100)
    with pytest.raises(StoreError, match=r"feed\.csv can't be used"):
        Store(path)
    assert path.read_text().startswith("incident")
    with pytest.raises(StoreError, match="can't be used"):
        Store(tmp_path / "absent" / "desk.db")
