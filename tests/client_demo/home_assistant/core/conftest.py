"""Fixtures for tests in Home Assistant's core: the built integration, a real node, and a network that can be cut."""

import importlib
import importlib.util
import sys
import tempfile
from pathlib import Path

import pytest
import pytest_socket
from end_to_end.kit.proxy import Proxy
from real_node import ROOT, Node
from support.odd_node import OddNode


def _build():
    """Build the integration as its users do, and put the folder before all others that are searched for imports."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "client_demo" / "home_assistant" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tempfile.TemporaryDirectory()
    module.build(Path(folder.name) / "built")
    sys.path.insert(0, str(Path(folder.name) / "built"))
    importlib.import_module("custom_components")  # before the core finds the plugin's package of this name
    return folder


BUILT = _build()


@pytest.fixture(scope="session")
def session_node(tmp_path_factory):
    """A node for all tests of the session."""
    pytest_socket.enable_socket()
    node = Node(tmp_path_factory.mktemp("node"))
    node.start()
    yield node
    node.kill()


@pytest.fixture(scope="session")
def session_proxy(session_node):
    """A network between Home Assistant and the node."""
    with Proxy(session_node.stream_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def session_odd_node():
    """A node that sends each odd message. It lasts for the session, because its threads do."""
    pytest_socket.enable_socket()
    with OddNode() as node:
        yield node


@pytest.fixture
def odd_node(session_odd_node, socket_enabled):
    """The node that sends each odd message, with sockets allowed."""
    return session_odd_node


@pytest.fixture
def node(session_node, socket_enabled):
    """The node, with sockets allowed."""
    return session_node


@pytest.fixture
def network(session_proxy, socket_enabled):
    """The network, which works at first and again at the end."""
    yield session_proxy
    session_proxy.accept()


@pytest.fixture(autouse=True)
def geocast_is_installed(enable_custom_integrations, monkeypatch):
    """Let Home Assistant load custom integrations, and let the client reconnect as soon as it may."""
    from custom_components.geocast.client import Client

    monkeypatch.setitem(Client.__init__.__kwdefaults__, "draw", lambda: 0.0)
