"""The log of this package follows the contract, which comes from geocast's sources."""

from alertlog.contract import LogContract
from elsewhere import CountingLog

from geocast.alertlog import codec, memory


class TestCountingLog(LogContract):
    """All rules of the port except durability."""

    modules = (memory,)

    def new(self, tmp_path):
        return CountingLog()

    async def write(self, log, later):
        log.take(codec.decode(later.payload, later.id, later.revision, later.ends_at))
