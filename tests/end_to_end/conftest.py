"""The nodes that tests share, and subscribers that hang up when the test is over."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.dispatcher import ONE_RING, calling_node
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import ORIGIN, Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.tls import Certificate, make_certificate
from support.push_service import PushService


@pytest.fixture(scope="session")
def keys() -> Keys:
    """The keys of all nodes."""
    return Keys()


@pytest.fixture(scope="session")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node for all tests that don't need one to themselves; each has its own ground on it."""
    with Node(tmp_path_factory.mktemp("node"), keys, "--origins", ORIGIN) as shared:
        yield shared


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For localhost and 127.0.0.1, good for an hour."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def service(certificate: Certificate) -> Iterator[PushService]:
    """A push service, which finds nothing wrong with what it is sent."""
    with PushService(certificate) as service:
        yield service
    assert service.wrong == []


@pytest.fixture
def own_node(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node that a test may kill."""
    with Node(tmp_path, keys) as node:
        yield node


@pytest.fixture
def own_calling(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node in whose policy there are calls, that a test may kill."""
    with calling_node(tmp_path, keys, policy=ONE_RING) as node:
        yield node


@pytest.fixture
def join() -> Iterator[Callable[..., Session]]:
    """`join(node, place, …)`: a subscriber that hangs up when the test is over."""
    joined: list[Session] = []

    def joining(node: Node, *places: object, **hello: object) -> Session:
        joined.append(node.join(*places, **hello))
        return joined[-1]

    yield joining
    for session in joined:
        session.drop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a file system of 1 MiB; skip the test where that is not possible."""
    where = tmp_path / "disk"
    where.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount a small tmpfs")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where], capture_output=True, check=False
    ).returncode:
        pytest.skip("a tmpfs can't be mounted here")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)
