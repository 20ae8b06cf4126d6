"""The pages of `GET /v1/alerts`: following the links misses no alert that is live all the time."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, ground, new_id, revision_of
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import stamp
from support.redis_server import RedisServer, needs_redis

COUNT, LIMIT, AT_ONCE = 1_100, 100, 25


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def two(request: pytest.FixtureRequest, keys: Keys, tmp_path: Path) -> Iterator[list[Node]]:
    """Two nodes on one log."""
    homes = [tmp_path / "one", tmp_path / "other"]
    with contextlib.ExitStack() as stack:
        log = f"sqlite:{tmp_path / 'shared.db'}"
        if request.param == "redis":
            log = stack.enter_context(RedisServer(tmp_path / "redis")).url
        for home in homes:
            home.mkdir()
        yield [stack.enter_context(Node(home, keys, log=log)) for home in homes]


def follow(nodes: list[Node], path: str, between: Callable[[int], None]) -> list[list[Json]]:
    """Return every page, read from the two nodes by turns; `between` gets the number of pages after each."""
    pages: list[list[Json]] = []
    while path:
        answer: httpx.Response = nodes[len(pages) % 2].get(path)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["alerts"])
        between(len(pages))
        path = answer.links.get("next", {}).get("url", "")
    return pages


def test_following_the_page_links_returns_every_alert_that_stays_live(two: list[Node]):
    """1,100 alerts are read while others are published, revised, prolonged and cancelled (rules H14 and H14a)."""
    spot = ground()
    bodies = [alert(spot, id=new_id("walk"), expires_at=stamp(minutes=10 + n * 7 % 20)) for n in range(COUNT)]
    for start in range(0, COUNT, AT_ONCE):
        answers = two[0].at_once("/v1/alerts", bodies[start : start + AT_ONCE])
        assert {answer.status_code for answer in answers} == {201}
    new: set[str] = set()
    revised, lengthened, cancelled = (
        {body["id"]: body for body in bodies[start::50]} for start in (0, 17, 31)
    )  # 22 alerts of each kind
    to_do = list(zip(revised.values(), lengthened.values(), cancelled, strict=True))

    def meanwhile(page: int) -> None:
        node = two[page // 2 % 2]
        for _ in range(2):
            if to_do:
                same, longer, over = to_do.pop()
                node.revise(revision_of(same, 2))
                node.revise(revision_of(longer, 2, expires_at=stamp(minutes=35)))
                node.cancel(over, 2)
                new.add(node.publish(alert(spot, id=new_id("new"), expires_at=stamp(minutes=20)))["id"])

    pages = follow(two, f"/v1/alerts?limit={LIMIT}", meanwhile)
    assert not to_do
    assert max(map(len, pages)) == LIMIT
    given = Counter(each["id"] for page in pages for each in page)
    walked = {body["id"] for body in bodies}
    assert walked - cancelled.keys() <= given.keys() <= walked | new
    assert {alert_id for alert_id, count in given.items() if count > 1} <= lengthened.keys()
    assert max(given.values()) <= 2

    # Both nodes list the same live alerts now, in pages of 1,000 by default.
    default = follow(two, "/v1/alerts", lambda _: None)
    live = sorted((walked | new) - cancelled.keys())
    assert sorted(each["id"] for page in default for each in page) == live
    assert [len(page) for page in default] == [1000, len(live) - 1000]
    numbers = {each["id"]: each["revision"] for page in default for each in page}
    assert {alert_id for alert_id, number in numbers.items() if number == 2} == revised.keys() | lengthened.keys()
