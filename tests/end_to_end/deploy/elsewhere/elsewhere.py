"""A way out that writes each event as a line to a file, and a log that counts what is appended to it."""

from geocast.alertlog.memory import MemoryLog
from geocast.metrics import counter
from geocast.model.errors import ConfigError
from geocast.run.follower import WayOut


class Lines(WayOut):
    """Writes the id, the revision and the headline of each alert to a file; a cancelled alert has no headline."""

    def __init__(self, process, options):
        self._written, self._error, self._told = 0, "", set()
        self.adopt(options)

    def adopt(self, options):
        """Take the options: the path of the file."""
        table = options.get("lines", {})
        if not isinstance(table.get("path"), str) or set(table) != {"path"}:
            raise ConfigError('options: expected a table [lines] with path = "…"')
        self._path = table["path"]

    def apply(self, alert):
        """Write a line, unless it was written before."""
        entry = alert.current
        if (entry.id, entry.revision) in self._told:
            return
        headline = "-" if alert.cancel else alert.revision.alert.headline
        try:
            with open(self._path, "a") as file:
                print(entry.id, entry.revision, headline, file=file)
            self._error = ""
        except OSError as error:
            self._error = error.strerror
            return
        self._told.add((entry.id, entry.revision))
        self._written += 1

    def metrics(self):
        """Yield how many lines were written."""
        yield counter("lines_written", "Lines written", self._written)

    def unready(self):
        """Say that the file can't be written."""
        return [f"the lines can't be written: {self._error}"] if self._error else []


class CountingLog(MemoryLog):
    """A log in memory that counts its entries."""

    appended = 0

    async def append(self, entry):
        """Append an entry."""
        stored = await super().append(entry)
        self.appended += stored
        return stored


def make_log(url, verifier):
    """Return the log of a URL such as counting:."""
    return CountingLog(verifier)
