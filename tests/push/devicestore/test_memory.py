"""Devices in memory: the rules of the port (`geocast.push.devicestore`)."""

import pytest

pytest.register_assert_rewrite("push.devicestore.contract")

from push.devicestore.contract import FencedContract, begin_term  # noqa: E402 (its asserts are rewritten first)

from geocast.push.devicestore.memory import MemoryDevices  # noqa: E402


class TestMemoryDevices(FencedContract):
    """The rules of the port on memory, except those about restarts."""

    def new(self, tmp_path):
        return MemoryDevices()

    def other(self, store):
        return store.other()

    async def begin_term(self, store, shard):
        return begin_term(store, shard)
