"""Judges the pushes to the demo's sleeping phones: which each phone had to get, and whether it got them. No I/O.

The judge follows push-rules.md with a distance formula of its own (haversine), and uses nothing of the code of
`geocast push`. Times are in ms since 1970.

Rule 1  A sleeping phone is registered for H3 cells, and does not move. When a revision of an alert reaches one of these
        cells, the phone *had to* get that revision (D2), every later one and the cancellation (R4).
Rule 2  Only the phone's last message about an alert is judged: it must be the newest revision, or the cancellation.
        Earlier messages may be missing, because the push service replaces an older revision by a newer one (WPT3).
Rule 3  A phone that did not have to get an alert got no message about it (R1).
Rule 4  A phone need not get alerts that had ended when it woke (E1). Within 1 cm of the edge of an area, both are
        right: that the phone got the alert, and that it did not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from client_demo.python.geo import EDGE_M, Place, depth_m

from .verdict import Published, percentile


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A phone that is registered for pushes.

    `places` are the cells that it is registered for, `slept` says whether it slept until the end, and `told` has the
    messages that it received, in order, as (id, revision). `taken_ms` has the times in ms from a publisher's request
    until the push service had the push.
    """

    places: Sequence[Place]
    slept: bool
    told: Sequence[tuple[str, int]]
    taken_ms: Sequence[float] = ()


@dataclass(slots=True)
class PushVerdict:
    """The verdict on all pushes. It counts pairs, each of one phone and one alert.

    `expected` is the number of pairs in which the phone should have got the alert's newest message (a revision or the
    cancellation), and `told` is the number in which it did. In `slept` pairs it got that message only when it woke from
    sleep. In `missed` pairs it should have got the message and did not; in `outside` pairs it got a message about an
    alert that does not concern it.
    """

    phones: int = 0
    expected: int = 0
    told: int = 0
    slept: int = 0
    outside: int = 0
    missed: int = 0
    faults: list[str] = field(default_factory=list)
    taken_ms: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether every phone that had to get an alert got it, and no other phone did."""
        return self.told > 0 and not (self.outside or self.missed or self.faults)

    def line(self) -> str:
        """Return the verdict as one line for programs."""
        half, last = (percentile(self.taken_ms, share) for share in (0.5, 1.0))
        return (
            f"push: expected={self.expected} told={self.told} outside={self.outside} missed={self.missed} "
            f"phones={self.phones} told_on_waking={self.slept} p50_ms={half:.1f} last_ms={last:.1f}"
        )


def check_pushes(
    published: Sequence[Published], ends_ms: Mapping[str, int], sleepers: Iterable[Sleeper], now_ms: int
) -> PushVerdict:
    """Judge every phone, and return the verdict.

    `ends_ms` has the end of each alert according to its newest revision; `now_ms` is the time at which the phones woke.
    """
    found = PushVerdict()
    newest = {item.id: item.revision for item in sorted(published, key=lambda item: item.revision)}
    for sleeper in sleepers:
        found.phones += 1
        found.taken_ms += sleeper.taken_ms
        last = dict(sleeper.told)
        for alert_id, revision in newest.items():
            depth = max(depth_m(item.area or (), sleeper.places) for item in published if item.id == alert_id)
            _check(found, sleeper, depth, last.get(alert_id), revision, lives=ends_ms[alert_id] > now_ms)
        found.faults += ["an alert was pushed that was never published" for alert_id in last if alert_id not in newest]
        if len(set(sleeper.told)) < len(sleeper.told):
            found.faults.append("a phone got the same message twice")
    return found


def _check(found: PushVerdict, sleeper: Sleeper, depth: float, told: int | None, newest: int, *, lives: bool) -> None:
    """Judge one phone and one alert, and count the result in `found`."""
    if told is not None and depth < -EDGE_M:
        found.outside += 1
        return
    had_to = depth > EDGE_M and lives
    is_told = told == newest
    found.expected += had_to or is_told
    found.told += is_told
    found.slept += is_told and sleeper.slept
    found.missed += had_to and not is_told
