"""`geocast` as a command that a test calls in its own process."""

import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings
from support.command import Outcome
from support.preloaded import slow_the_disk

from geocast import cli

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it runs in the background ignore Ctrl-C, and so would the processes that tests end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if seed := os.environ.pop("GEOCAST_SLOW_FSYNC", None):  # no setting of a node
    slow_the_disk(seed)

# The same examples at each run, but of a soak, and no limit of time: a busy machine is no error of what is tested.
settings.register_profile(
    "steady",
    derandomize="GEOCAST_SOAK_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", settings.get_profile("steady"), max_examples=10)  # of `make quick`
settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """Start with the files that take long, so that no process is left with one of them at the end."""
    of_processes = {"end_to_end", "pages"}
    long = {item.path for item in items if item.get_closest_marker("slow") or of_processes & {*item.path.parts}}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def anyio_backend():
    """Run tests that are coroutine functions on asyncio alone."""
    return "asyncio"


@pytest.fixture
def geocast(monkeypatch, tmp_path, capsys):
    """`geocast(*arguments, NAME=value)`: the command, in a folder and an environment of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GEOCAST_")]:
        monkeypatch.delenv(name)

    def call(*arguments, **environment):
        monkeypatch.setattr(sys, "argv", ["geocast", *map(str, arguments)])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # which `serve` blocks until it ends
        said = capsys.readouterr()
        return Outcome(ended.value.code or 0, said.out, said.err)

    return call


@pytest.fixture
def keys(geocast):
    """A key pair at the default places."""
    assert geocast("keygen").status == 0
