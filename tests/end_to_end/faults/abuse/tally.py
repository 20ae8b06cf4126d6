"""The results of the good parties in a period, and the comparison of periods with and without an attack."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

GRAIN_MS = 10.0
"""The least quiet p99 for comparisons: the scheduler of a shared machine alone can cause such delays."""

TWICE = 2.0
"""The greatest allowed ratio of the p99 under attack to the quiet p99."""

FEW = 100
"""With fewer samples of a kind than this, the p95 is compared: the p99 would be the slowest sample alone."""


@dataclass
class Tally:
    """Durations in seconds by kind, and a count of everything that was refused, lost or sent to outsiders."""

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter[str] = field(default_factory=Counter)
    """The number of errors by description; descriptions contain no ids."""

    def refused(self, kind: str, why: object) -> None:
        """Count an error answer to a good party."""
        self.wrong[f"refused: {kind}: {why}"] += 1

    def lost(self, kind: str, what: str = "did not come") -> None:
        """Count a message that never arrived."""
        self.wrong[f"lost: {kind}: {what}"] += 1

    def outside(self, what: str) -> None:
        """Count a message to somebody who must not get it."""
        self.wrong[f"outside: {what}"] += 1

    def p99_ms(self, kind: str) -> float:
        """Return the 99th percentile of a kind in ms (the 95th with few samples), or NaN without samples."""
        sorted_s = sorted(self.took[kind])
        share = 0.99 if len(sorted_s) >= FEW else 0.95
        return sorted_s[max(0, math.ceil(share * len(sorted_s)) - 1)] * 1_000 if sorted_s else math.nan

    def summary(self) -> str:
        """Return the count and p99 of each kind, in one line."""
        figures = (f"{kind} {len(took)}/{self.p99_ms(kind):.0f} ms" for kind, took in sorted(self.took.items()) if took)
        return ", ".join(figures)


@dataclass
class Round:
    """One turn: a period without the attack, then a period under it."""

    quiet: Tally
    attacked: Tally

    def ratio(self, kind: str) -> float:
        """Return the p99 under attack divided by the quiet p99, or 0 if either has no samples."""
        quiet, attacked = self.quiet.p99_ms(kind), self.attacked.p99_ms(kind)
        return 0.0 if math.isnan(quiet) or math.isnan(attacked) else attacked / max(quiet, GRAIN_MS)


@dataclass
class Verdict:
    """The results of all turns of one attack."""

    attack: str
    rule: str
    rounds: list[Round] = field(default_factory=list)
    after: Tally = field(default_factory=Tally)
    """One step of each good party after the attack."""
    wrong: Counter[str] = field(default_factory=Counter)
    """The number of times that the attacker got what it must not get, by description."""
    said: Counter[str] = field(default_factory=Counter)
    """The number of answers to the attacker, by kind and status, for the report."""

    def all_wrong(self) -> Counter[str]:
        """Return every kind of error, of attacker and good parties, with its count; durations do not matter here."""
        of_good = sum((each.attacked.wrong + each.quiet.wrong for each in self.rounds), Counter[str]())
        behind = Counter({f"after the attack: {what}": count for what, count in self.after.wrong.items()})
        return self.wrong + of_good + behind

    def slow(self) -> dict[str, float]:
        """Return the kinds whose p99 more than doubled in every turn, each with its least ratio.

        A turn in which the machine was busy with other work does not count by itself.
        """
        kinds = sorted({kind for each in self.rounds for kind in each.attacked.took})
        least = {kind: min(each.ratio(kind) for each in self.rounds) for kind in kinds}
        return {kind: ratio for kind, ratio in least.items() if ratio > TWICE}

    def worst(self) -> tuple[float, str]:
        """Return the kind with the greatest ratio, where each kind counts with its least ratio of all turns."""
        kinds = {kind for each in self.rounds for kind in each.attacked.took}
        return max(((min(each.ratio(kind) for each in self.rounds), kind) for kind in kinds), default=(0.0, "nothing"))


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the verdicts as a table, one line each."""
    lines = [
        f"{'attack':24} {'rule':6} {'good ones: wrong':>16} {'attacker: wrong':>16}  worst p99 under attack / quiet"
    ]
    for each in verdicts:
        ratio, kind = each.worst()
        of_good = sum((each.all_wrong() - each.wrong).values())
        mark = "SLOW" if each.slow() else ""
        lines.append(
            f"{each.attack:20} {each.rule:6} {of_good:20} {sum(each.wrong.values()):16}  {ratio:5.1f}  {kind} {mark}"
        )
    return "\n".join(lines)
