"""Fixtures: a node, a desk with dispatch records, and a subscriber at the place of the incidents."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.conftest import join, keys  # noqa: F401 (fixtures)
from end_to_end.kit.alerts import ground, place
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from pages.desk.tools import HOSTILE


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:  # noqa: F811
    """Return a node for the tests of this folder."""
    with Node(tmp_path_factory.mktemp("node"), keys) as started:
        yield started


@pytest.fixture
def spot() -> tuple[float, float]:
    """Return a place that no other test uses."""
    return ground()


@pytest.fixture(scope="module")
def desk(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeskProcess]:
    """Return a desk for tests that decide nothing."""
    with desk_of_six(tmp_path_factory.mktemp("desk"), node, ground()) as process:
        yield process


@pytest.fixture
def own_desk(node: Node, tmp_path: Path, spot: tuple[float, float]) -> Iterator[DeskProcess]:
    """Return a desk for a test that makes a decision, with incidents at the place of `phone`."""
    with desk_of_six(tmp_path, node, spot) as process:
        yield process


def desk_of_six(home: Path, node: Node, spot: tuple[float, float]) -> DeskProcess:
    """Return a desk with a fire, an old fire, an arson, an assault, a crash, and a record with markup."""
    feed = write_feed(
        home / "feed.csv",
        [
            row("FIRE", "Structure fire", spot),
            row("FIRE", "Structure fire", spot, 40, unit="Ladder 4"),
            row("OLD", "Commercial fire", spot, 3700),
            row("ARSON", "Arson", spot, 300),
            row("NEVER", "Assault", spot, 400),
            row("CRASH", "Traffic collision", spot, 450),
            row("EVIL", HOSTILE, spot, 500, address="</p><script>document.title='owned'</script>", unit="&amp;"),
        ],
    )
    return DeskProcess(home, node, feed, "--as-recorded")


@pytest.fixture
def phone(node: Node, spot: tuple[float, float], join: Callable[..., Session]) -> Session:  # noqa: F811
    """Return a subscriber at the place of the incidents."""
    return join(node, place(spot))
