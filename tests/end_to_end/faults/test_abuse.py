"""Attacks beside good parties, none of whom notices: nothing refused or lost, nobody outside told.

`make soak-abuse` has each attack last for SECONDS=60, beside more parties, and compares times. Without it an attack
lasts a second or two, and times are not judged.
"""

import os
from collections.abc import Iterator

import pytest
from end_to_end.faults.abuse.attacks import ATTACKS, DRAIN, Attack
from end_to_end.faults.abuse.parties import Board
from end_to_end.faults.abuse.tally import Round, Tally, Verdict, table
from end_to_end.faults.abuse.world import DRAIN_S, AttackedDeployment, progress
from support.redis_server import missing

SECONDS = float(os.environ.get("ABUSE_SECONDS", "1.5"))
IS_LONG = "ABUSE_SECONDS" in os.environ
SEED = int(os.environ.get("ABUSE_SEED", "1"))
ON_REDIS = os.environ.get("ABUSE_LOG") == "redis"
SIZE = {"subscribers": 500, "devices": 200} if IS_LONG else {"subscribers": 40, "devices": 12}
DRAINS_WITHIN_S = DRAIN_S + 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(0 if IS_LONG else 600),
    pytest.mark.skipif(ON_REDIS and missing() is not None, reason=str(missing())),
]


class Worlds:
    """The world that attacks share, until one has succeeded. In a long run each has its own."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory, self._world = factory, None
        self.verdicts: list[Verdict] = []

    def get(self) -> AttackedDeployment:
        """Return the world."""
        if self._world is None:
            self._world = AttackedDeployment(self._factory.mktemp("abuse"), on_redis=ON_REDIS, seed=SEED, **SIZE)
        return self._world

    def end(self) -> None:
        """End the world, if there is one."""
        world, self._world = self._world, None
        if world is not None:
            world.close()

    _world: AttackedDeployment | None
    _factory: pytest.TempPathFactory


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """Worlds to attack; at the end the table of verdicts is shown."""
    worlds = Worlds(tmp_path_factory)
    yield worlds
    worlds.end()
    print(f"\n{table(worlds.verdicts)}")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.rule}")
def test_attack_is_not_noticed_by_good_parties(worlds: Worlds, attack: Attack):
    """HD1 to HD19: what is published reaches all who are inside, and nobody else; the attacker gains nothing."""
    if attack.only_on and ON_REDIS:
        pytest.skip(f"an attack on a log in {attack.only_on}")
    seconds = max(SECONDS, attack.at_least_s)
    if IS_LONG:
        worlds.end()
    progress(f"{attack.name} ({attack.rule}): ABUSE_SECONDS={seconds:g} ABUSE_SEED={SEED}")
    verdict = worlds.get().attack(attack, seconds, quiet_s=20 if IS_LONG else 0, turns=2 if IS_LONG else 1)
    worlds.verdicts.append(verdict)
    wrong = verdict.all_wrong()
    progress(f"{attack.name}: attacker: {dict(verdict.said)}; wrong: {dict(wrong)}")
    if wrong:
        worlds.end()
    assert not wrong, "\n".join(f"{count} x {what}" for what, count in wrong.items())
    if IS_LONG:
        assert not verdict.slow(), f"p99 more than twice what it is without the attack, in every turn: {verdict.slow()}"


def test_verdict_is_slow_only_where_every_turn_is():
    """A p99 of more than twice the quiet one in one turn is noise; in all of them it is the attack's."""
    turns = [({"ping": 0.02, "told": 0.02}, {"ping": 0.05, "told": 0.05})] * 2
    turns.append(({"ping": 0.02, "told": 0.02}, {"ping": 0.05, "told": 0.03}))
    verdict = Verdict("any", "")
    for quiet, attacked in turns:
        verdict.rounds.append(Round(*(Tally({k: [s] for k, s in each.items()}) for each in (quiet, attacked))))
    assert verdict.slow() == {"ping": pytest.approx(2.5)}
    assert verdict.worst()[1] == "ping"


def test_board_counts_who_was_not_told_who_was_outside_and_who_was_told_twice():
    """Who is inside is to be told once, and nobody else."""
    board = Board()
    awaited = board.expect(("a", 1), ["in", "in too"])
    for who, key in (("in", ("a", 1)), ("in", ("a", 1)), ("out", ("a", 1)), ("in", ("a", 2))):
        board.told(who, key)
    assert awaited.left == {"in too"}
    assert sum(board.tally.wrong.values()) == 3


def test_drain_with_held_requests_ends_without_traceback(worlds: Worlds):
    """HD3, HD14: a node that is told to end does not wait for requests whose bodies never come."""
    verdict, took = worlds.get().drain(DRAIN)
    worlds.end()
    worlds.verdicts.append(verdict)
    progress(f"drained in {took:.1f} s")
    assert not verdict.wrong, str(verdict.wrong)
    if IS_LONG:
        assert took < DRAINS_WITHIN_S
