"""Fixtures for all tests, among them `geocast`, which runs the command in the test's own process."""

import os
import signal
import sys
import zlib

import pytest
from hypothesis import HealthCheck, settings
from support.command import Outcome
from support.loops import check_threads_only
from support.preloaded import slow_the_disk

from geocast import cli

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell makes background jobs ignore SIGINT. Tests end their child processes by SIGINT, so restore the default.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if seed := os.environ.pop("GEOCAST_SLOW_FSYNC", None):  # not a setting of a node
    slow_the_disk(seed)

check_threads_only()

# Use the same examples in each run, except in a soak, and no time limit: a busy machine must not fail a test.
settings.register_profile(
    "steady",
    derandomize="GEOCAST_SOAK_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", settings.get_profile("steady"), max_examples=10)  # for `make quick`
settings.load_profile("steady")


def pytest_collection_modifyitems(config, items):
    """Run the slow files first, so that at the end no test process is still busy with one of them.

    Files that mostly wait are mixed with files that mostly compute, so that neither kind fills all test processes.
    """
    paths = {item: item.path.relative_to(config.rootpath) for item in items}
    of_processes = {"end_to_end", "pages"}
    long = {paths[item] for item in items if item.get_closest_marker("slow") or of_processes & {*paths[item].parts}}
    order = {path: zlib.crc32(str(path).encode()) for path in long}
    items.sort(key=lambda item: order.get(paths[item], 1 << 32))


@pytest.fixture(scope="session")
def anyio_backend():
    """Return the backend for tests that are coroutine functions: only asyncio."""
    return "asyncio"


@pytest.fixture
def geocast(monkeypatch, tmp_path, capsys):
    """Return `geocast(*arguments, NAME=value)`, which runs the command in a new folder and environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GEOCAST_")]:
        monkeypatch.delenv(name)

    def call(*arguments, **environment):
        monkeypatch.setattr(sys, "argv", ["geocast", *map(str, arguments)])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `serve` blocks SIGHUP until it ends
        said = capsys.readouterr()
        return Outcome(ended.value.code or 0, said.out, said.err)

    return call


@pytest.fixture
def keys(geocast):
    """Create a key pair at the default paths."""
    assert geocast("keygen").status == 0
