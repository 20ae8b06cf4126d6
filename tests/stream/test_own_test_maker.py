"""Own tests: their content, and how many a subject may ask for (rules TR2, TR4 and TR5)."""

import pytest
from support.fakes import DALLAS, FakeClock

from geocast import policy
from geocast.auth.tokens import Subject
from geocast.geometry.sphere import distance_m
from geocast.model.errors import ConfigError
from geocast.policy.publishers.bounds import Rate
from geocast.stream.own_tests import LIFE_MS, OwnTests, split_request, with_request
from geocast.wire.frames import alert_map
from geocast.wire.output import AlertOut

SOMEBODY, OTHER = Subject("", "somebody"), Subject("", "other")
POLICY = b'name = "p"\n[categories]\nflood = { title = "Flood" }\nfire = { title = "Fire" }\n'


def made_under(text=POLICY):
    """Return an object that makes own tests under a policy."""
    parsed = policy.parse(text, None)
    return OwnTests(lambda: parsed)


def test_own_test_without_a_table_of_the_policy_has_the_first_category_and_the_default_text():
    """TR2: it is a test, and ends after five minutes."""
    now = FakeClock().now()
    test = made_under().alert("k.1", (*DALLAS, 0.0), now)
    sent = alert_map(test)
    assert (sent["id"], sent["revision"], sent["status"], sent["severity"]) == ("try:k.1", 1, "test", "severe")
    assert (sent["category"], sent["title"]) == ("flood", "Flood")
    assert "test" in sent["headline"]
    assert test.alert.expires_at == now.wall_ms + LIFE_MS
    assert AlertOut.__required_keys__ <= sent.keys()


def test_own_test_has_the_category_and_the_texts_of_the_policy():
    """TR2: `[test]` of the policy."""
    table = b'[test]\ncategory = "fire"\nheadline = "Probe"\ndescription = "Nothing to do."\n'
    alert = made_under(POLICY + table).alert("k", (*DALLAS, 0.0), FakeClock().now()).alert
    assert (alert.category, alert.headline, alert.description) == ("fire", "Probe", "Nothing to do.")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('category = "theft"', "test.category: is not a category"),
        ('headline = ""', "test.headline"),
        ('headlin = "x"', "test.headlin: is not a known key; did you mean headline?"),
    ],
)
def test_policy_with_a_malformed_table_of_own_tests_is_refused(table, said):
    """TR2: the error names the key."""
    with pytest.raises(ConfigError) as refused:
        policy.parse(POLICY + b"[test]\n" + table.encode(), None)
    assert said in str(refused.value)


@pytest.mark.parametrize("reach_m", [0.0, 200.0, 10_000.0])
@pytest.mark.parametrize("place", [DALLAS, (90.0, 0.0), (0.0, 180.0), (-17.5, -179.9999)])
def test_area_of_an_own_test_contains_the_whole_place(place, reach_m):
    """TR2: the person is inside, wherever in the reach of the place they are."""
    [circle] = made_under().alert("k", (*place, reach_m), FakeClock().now()).alert.circles
    assert distance_m(*place, circle.lat, circle.lng) + reach_m <= circle.radius_m


def test_second_own_test_of_a_subject_within_an_hour_has_to_wait():
    """TR5: the wait is in whole seconds; other subjects, and sessions without a token, are not affected."""
    tests, clock = made_under(), FakeClock()
    assert tests.wait_s(SOMEBODY, clock.now()) == 0
    clock.advance(599.5)
    assert tests.wait_s(SOMEBODY, clock.now()) == 3001
    assert tests.wait_s(OTHER, clock.now()) == 0
    assert [tests.wait_s(None, clock.now()) for _ in range(3)] == [0, 0, 0]
    clock.advance(3001)
    assert tests.wait_s(SOMEBODY, clock.now()) == 0


def test_own_test_that_was_given_back_does_not_count():
    """TR5: a registration that failed costs no test."""
    tests, clock = made_under(), FakeClock()
    now = clock.now()
    assert tests.wait_s(SOMEBODY, now) == 0
    tests.give_back(SOMEBODY, now.monotonic)
    assert tests.wait_s(SOMEBODY, clock.now()) == 0


def test_own_tests_of_all_subjects_are_bounded(monkeypatch):
    """TR5: a subject that is refused because of the others keeps its own share."""
    monkeypatch.setattr("geocast.stream.own_tests.ALL_RATES", (Rate(2, 3600),))
    tests, clock = made_under(), FakeClock()
    assert [tests.wait_s(Subject("", str(n)), clock.now()) for n in range(3)] == [0, 0, 3600]
    clock.advance(3600)
    assert tests.wait_s(Subject("", "2"), clock.now()) == 0


def test_request_for_an_own_test_is_passed_on_beside_the_alerts_that_a_device_has():
    """WPN2: a test that the device has had is no request for another one."""
    holding = {"a-1": 2, "try:old": 1}
    assert split_request(with_request(holding, None)) == (holding, None)
    assert split_request(with_request(holding, "new")) == (holding, "new")
