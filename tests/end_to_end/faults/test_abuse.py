"""Tests that attack a deployment while good parties (clients that keep the rules) use it.

No request of a good party may be refused, no message to one may be lost, and nobody outside may get a message. `make
soak-abuse` runs each attack for SECONDS=60 beside more parties and compares response times. Otherwise an attack lasts a
second, and times are not compared.
"""

import os
from collections.abc import Iterator

import pytest
from end_to_end.faults.abuse.attacks import ATTACKS, DRAIN, Attack
from end_to_end.faults.abuse.parties import Deliveries
from end_to_end.faults.abuse.tally import Round, Tally, Verdict, table
from end_to_end.faults.abuse.world import DRAIN_S, AttackedDeployment, progress
from support.redis_server import missing

SECONDS = float(os.environ.get("ABUSE_SECONDS", "1"))
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
    """The deployment that all attacks share until one attack succeeds. In a long run each attack gets a new one."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory, self._world = factory, None
        self.verdicts: list[Verdict] = []

    def get(self) -> AttackedDeployment:
        """Return the deployment; start it first if there is none."""
        if self._world is None:
            self._world = AttackedDeployment(self._factory.mktemp("abuse"), on_redis=ON_REDIS, seed=SEED, **SIZE)
        return self._world

    def end(self) -> None:
        """Stop the deployment, if there is one."""
        world, self._world = self._world, None
        if world is not None:
            world.close()

    _world: AttackedDeployment | None
    _factory: pytest.TempPathFactory


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """Yield the deployments to attack; print the table of verdicts at the end."""
    worlds = Worlds(tmp_path_factory)
    yield worlds
    worlds.end()
    print(f"\n{table(worlds.verdicts)}")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.rule}")
def test_attack_does_not_affect_the_messages_of_well_behaved_clients(worlds: Worlds, attack: Attack):
    """Alerts reach everybody inside and nobody else, and the attacker gains nothing (HD1 to HD19, FA7)."""
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


def test_verdict_reports_slowness_only_if_every_round_of_the_attack_was_slow():
    """A p99 above twice the quiet p99 in one turn is noise; in every turn the attack is the cause."""
    turns = [({"ping": 0.02, "delivery": 0.02}, {"ping": 0.05, "delivery": 0.05})] * 2
    turns.append(({"ping": 0.02, "delivery": 0.02}, {"ping": 0.05, "delivery": 0.03}))
    verdict = Verdict("any", "")
    for quiet, attacked in turns:
        verdict.rounds.append(Round(*(Tally({k: [s] for k, s in each.items()}) for each in (quiet, attacked))))
    assert verdict.slow() == {"ping": pytest.approx(2.5)}
    assert verdict.worst()[1] == "ping"


def test_message_checker_counts_missing_repeated_and_misdirected_messages():
    deliveries = Deliveries()
    awaited = deliveries.expect(("a", 1), ["in", "in too"])
    for who, key in (("in", ("a", 1)), ("in", ("a", 1)), ("out", ("a", 1)), ("in", ("a", 2))):
        deliveries.received(who, key)
    assert awaited.left == {"in too"}
    assert sum(deliveries.tally.wrong.values()) == 3


def test_drain_with_unfinished_requests_ends_without_a_traceback(worlds: Worlds):
    """A node that is stopped does not wait for requests whose bodies never come (HD3, HD14)."""
    verdict, took = worlds.get().drain(DRAIN)
    worlds.end()
    worlds.verdicts.append(verdict)
    progress(f"drained in {took:.1f} s")
    assert not verdict.wrong, str(verdict.wrong)
    if IS_LONG:
        assert took < DRAINS_WITHIN_S
