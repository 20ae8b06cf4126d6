"""The outages of a fault run, and the time for which they may keep a node from reading the log."""

from collections.abc import Iterable
from dataclasses import dataclass

BEHIND_S = 60.0  # seconds for which a node may lack an entry if there is no long outage
LONG_S = 10.0  # from this length on an outage, such as a failover, may keep nodes from the log
CALM_S = 30.0  # the total time without a long outage after which every node has read everything


@dataclass
class Outage:
    """A period in which one or two faults were in force, in wall-clock seconds."""

    name: str
    start: float
    end: float = float("inf")

    def __str__(self) -> str:
        return f"{self.name}, for {self.end - self.start:.1f} s"


def read_by_all(at: float, outages: Iterable[Outage]) -> float:
    """Return the time by which every node has read what was stored at `at`.

    Example: four failovers follow one another for 70 s, with 3 to 8 s between them. A node may need all of that time
    and 30 s more.
    """
    calm_s, now = CALM_S, at
    for outage in sorted(outages, key=lambda each: each.start):
        if outage.end - outage.start < LONG_S or outage.end <= now:
            continue
        if outage.start - now >= calm_s:
            break
        calm_s -= max(0.0, outage.start - now)
        now = outage.end
    return max(at + BEHIND_S, now + calm_s)
