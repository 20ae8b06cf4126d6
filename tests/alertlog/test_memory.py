"""The log in memory keeps the contract."""

import pytest
from alertlog.contract import LogContract

from geocast.alertlog import codec, memory

pytestmark = pytest.mark.timeout(60)


class TestMemoryLog(LogContract):
    """All rules of the port except durability."""

    modules = (memory,)

    def new(self, tmp_path):
        return memory.MemoryLog()

    async def write(self, log, later):
        log.take(codec.decode(later.payload, later.id, later.revision, later.ends_at))
