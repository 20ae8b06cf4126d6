"""The log in memory follows the contract."""

from alertlog.contract import LogContract

from geocast.alertlog import codec, memory


class TestMemoryLog(LogContract):
    """All rules of the port except durability."""

    modules = (memory,)

    def new(self, tmp_path):
        return memory.MemoryLog()

    async def write(self, log, later):
        log.take(codec.decode(later.payload, later.id, later.revision, later.ends_at))
