"""What the good parties met in a stretch of time, and the comparison of a stretch with an attack and one without."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

GRAIN_MS = 10.0
"""Quiet p99s below this count as this: the scheduler of a shared machine alone costs as much now and then."""

TWICE = 2.0
"""How many times the quiet p99 the p99 under attack may be."""


@dataclass
class Tally:
    """Seconds by kind, and all that was refused to a good party, lost, or told to somebody outside."""

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter[str] = field(default_factory=Counter)
    """What went wrong, in words without ids, and how often."""

    def refused(self, kind: str, why: object) -> None:
        """Note an answer that a good party should not get."""
        self.wrong[f"refused: {kind}: {why}"] += 1

    def lost(self, kind: str, what: str = "did not come") -> None:
        """Note that something never came."""
        self.wrong[f"lost: {kind}: {what}"] += 1

    def outside(self, what: str) -> None:
        """Note a message to somebody who was not to have it."""
        self.wrong[f"outside: {what}"] += 1

    def p99_ms(self, kind: str) -> float:
        """Return the 99th percentile of a kind in ms; NaN without samples."""
        sorted_s = sorted(self.took[kind])
        return sorted_s[max(0, math.ceil(0.99 * len(sorted_s)) - 1)] * 1_000 if sorted_s else math.nan

    def summary(self) -> str:
        """Return counts and p99 of each kind, in one line."""
        figures = (f"{kind} {len(took)}/{self.p99_ms(kind):.0f} ms" for kind, took in sorted(self.took.items()) if took)
        return ", ".join(figures)


@dataclass
class Round:
    """One turn: a stretch without the attack, then one under it."""

    quiet: Tally
    attacked: Tally

    def ratio(self, kind: str) -> float:
        """Return how many times the quiet p99 the p99 under attack is; 0 where either has no samples."""
        quiet, attacked = self.quiet.p99_ms(kind), self.attacked.p99_ms(kind)
        return 0.0 if math.isnan(quiet) or math.isnan(attacked) else attacked / max(quiet, GRAIN_MS)


@dataclass
class Verdict:
    """What became of one attack."""

    attack: str
    rule: str
    rounds: list[Round] = field(default_factory=list)
    after: Tally = field(default_factory=Tally)
    """One step of each good party behind the attack."""
    wrong: Counter[str] = field(default_factory=Counter)
    """What the attacker got that it must not get."""
    said: Counter[str] = field(default_factory=Counter)
    """What the attacker was answered, for the report."""

    def all_wrong(self) -> Counter[str]:
        """Return everything that is wrong, whatever the time it took."""
        of_good = sum((each.attacked.wrong + each.quiet.wrong for each in self.rounds), Counter[str]())
        behind = Counter({f"after the attack: {what}": count for what, count in self.after.wrong.items()})
        return self.wrong + of_good + behind

    def slow(self) -> dict[str, float]:
        """Return the kinds whose p99 was more than twice the quiet one in every turn, and the least ratio.

        A turn in which the machine was busy with others is one of several, so it does not count by itself.
        """
        kinds = sorted({kind for each in self.rounds for kind in each.attacked.took})
        least = {kind: min(each.ratio(kind) for each in self.rounds) for kind in kinds}
        return {kind: ratio for kind, ratio in least.items() if ratio > TWICE}

    def worst(self) -> tuple[float, str]:
        """Return the greatest of the least ratios of all turns, and its kind."""
        kinds = {kind for each in self.rounds for kind in each.attacked.took}
        return max(((min(each.ratio(kind) for each in self.rounds), kind) for kind in kinds), default=(0.0, "nothing"))


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the verdicts as a table."""
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
