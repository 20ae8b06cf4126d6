"""Devices in memory, of a trial and of tests: the rules of the port (`geocast.push.devicestore`)."""

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.register_assert_rewrite("push.devicestore.contract")

from push.devicestore.contract import (  # noqa: E402 (its asserts are rewritten first)
    Contract,
    FencedContract,
    begin_term,
    device,
    digest,
    put,
)
from push.memory_devices import MemoryDevices  # noqa: E402

from geocast.push.devicestore.sqlite import SqliteDevices  # noqa: E402
from geocast.run.push import open_devices  # noqa: E402


class TestMemoryDevices(FencedContract):
    """The rules of the port on memory, except those about restarts."""

    def new(self, tmp_path):
        return MemoryDevices()

    def other(self, store):
        return store.other()

    async def begin_term(self, store, shard):
        return begin_term(store, shard)


class TestSqliteInMemory(Contract):
    """The rules of the port on `memory:`, except those about restarts. No file is made."""

    def new(self, tmp_path):
        return SqliteDevices(Path(":memory:"), alone=False)


async def test_trial_in_memory_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SimpleNamespace(devices="memory:", devices_replicas=0)
    store, _ = open_devices(settings)
    await store.start()
    await put(store, device("a"))
    assert await store.find(digest("a")) is not None
    await store.stop()
    assert list(tmp_path.iterdir()) == []
