"""Real Redis servers and Sentinels for tests, each with its own port and folder, independent of the system's Redis.

    with RedisServer(tmp_path / "redis") as server:
        log = RedisStreamsLog(server.url)
        server.kill(); server.start()      # the data on its disk is loaded again

    replica = RedisServer(tmp_path / "replica", replica_of=server)
    sentinels = [Sentinel(tmp_path / f"s{n}", server) for n in range(3)]

`needs_redis` skips a test if no redis-server is installed. With TEST_REDIS=valkey-server in the environment,
every server is a Valkey instead.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.ports import a_free_port
from support.wall_clock import WallClock, started_with

from geocast.storage.redis.target import OLDEST

PROGRAM = os.environ.get("TEST_REDIS", "redis-server")
PATIENCE_S = 60.0  # how long a server may take to carry out a command


def missing() -> str | None:
    """Return the reason why tests can't run a Redis here, or None if they can."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed (requirements/system.sh)"
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        return f"{PROGRAM} is older than {'.'.join(map(str, OLDEST))}"
    return None


needs_redis = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def wait_until(true: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> None:
    """Return as soon as `true()` is true; fail after `within_s`."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"waited {within_s:g} s in vain: {what}"
        time.sleep(0.01)


class Server(ABC):
    """A redis-server process: the parts that Redis and Sentinel have in common."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.folder = folder
        self.port = a_free_port()
        self.password = password
        self.clock: WallClock | None = None  # set before the start; None: the machine's clock
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def arguments(self) -> list[str]:
        """Return the arguments of the program."""

    def start(self) -> None:
        """Start the server with the data in its folder, and wait until it answers."""
        for _ in range(10):  # another process may have taken the port in the meantime
            with (self.folder / "output").open("ab") as output:
                self._process = subprocess.Popen(
                    [PROGRAM, *self.arguments()],
                    cwd=self.folder,
                    stdout=output,
                    stderr=output,
                    env=started_with(self.clock),
                )
            wait_until(lambda: self.ended or self.answers(), f"{PROGRAM} answers")
            if not self.ended:
                return
            self.port = a_free_port()
        raise AssertionError((self.folder / "output").read_text("utf-8", "replace")[-2000:])

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended or was never started."""
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """Stop the server in an orderly way; its data is on its disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server in an orderly way and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop the process (SIGSTOP): its sockets stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(PATIENCE_S)
            finally:
                self._process.kill()
        self._process = None

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """Connect to the server directly, bypassing the code under test."""
        with redis.Redis(
            port=self.port, password=self.password or None, socket_timeout=PATIENCE_S, retry=None
        ) as client:
            yield client

    def command(self, *words: Any) -> Any:
        """Return the server's answer to one command. Raise redis.RedisError."""
        with self.client() as client:
            return client.execute_command(*words)

    def answers(self) -> bool:
        """Return whether the server is up and has loaded its data."""
        try:
            return bool(self.command("PING"))
        except redis.RedisError:
            return False


class RedisServer(Server):
    """A Redis that syncs its append-only file before it answers, unless an option changes this."""

    def __init__(
        self, folder: Path, *, replica_of: "RedisServer | None" = None, password: str = "", **options: str
    ) -> None:
        """Prepare the server. `options` are further lines of redis.conf, with `_` instead of `-`."""
        super().__init__(folder, password)
        self._options = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "repl-diskless-sync-delay": "0",
            "enable-debug-command": "local",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        if password:
            self._options |= {"requirepass": password, "masterauth": password}
        if replica_of is not None:
            self._options["replicaof"] = f"127.0.0.1 {replica_of.port}"

    def arguments(self) -> list[str]:
        """Return the arguments of the program."""
        own = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), **self._options}
        # Write the file only once: later a Sentinel makes the server rewrite it, and that version must stay.
        config = self.folder / "redis.conf"
        if not config.exists():
            config.write_text("".join(f"{name} {value or chr(34) * 2}\n" for name, value in own.items()), "utf-8")
        return [str(config), "--port", str(self.port)]

    @property
    def url(self) -> str:
        """The value for `--log`."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def role(self) -> str:
        """The role that the server reports, `master` or `slave`."""
        return str(self.command("ROLE")[0].decode())

    @property
    def synced(self) -> bool:
        """Whether a replica has received all data that its primary had when the replica connected."""
        with self.client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")


class Sentinel(Server):
    """A Sentinel that watches `primary` under the name `geocast`; `quorum` Sentinels must agree on a failover."""

    def __init__(self, folder: Path, primary: RedisServer, *, quorum: int = 2, down_after_ms: int = 1000) -> None:
        super().__init__(folder)
        self._primary = primary
        self._quorum = quorum
        self._down_after_ms = down_after_ms

    def arguments(self) -> list[str]:
        """Return the arguments of the program."""
        config = self.folder / "sentinel.conf"
        if not config.exists():
            lines = [
                f"sentinel monitor geocast 127.0.0.1 {self._primary.port} {self._quorum}",
                f"sentinel down-after-milliseconds geocast {self._down_after_ms}",
                "sentinel failover-timeout geocast 5000",
                "sentinel parallel-syncs geocast 1",
            ]
            if self._primary.password:
                lines.append(f"sentinel auth-pass geocast {self._primary.password}")
            config.write_text("\n".join([f"dir {self.folder}", "bind 127.0.0.1", *lines, ""]), "utf-8")
        return [str(config), "--sentinel", "--port", str(self.port)]

    def primary_port(self) -> int:
        """Return the port of the server that the Sentinel considers the primary."""
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "geocast")[1])

    def knows(self, replicas: int, sentinels: int) -> bool:
        """Return whether the Sentinel has found this many replicas and other Sentinels."""
        with self.client() as client:
            state = client.sentinel_master("geocast")
            return bool(state["num-slaves"] >= replicas and state["num-other-sentinels"] >= sentinels)


@contextlib.contextmanager
def trio(folder: Path, **options: str) -> Iterator[tuple[list[RedisServer], list[Sentinel]]]:
    """Run a primary with two replicas and three Sentinels that have found each other."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(RedisServer(folder / "redis-0", **options))
        replicas = [RedisServer(folder / f"redis-{n}", replica_of=primary, **options) for n in (1, 2)]
        for replica in replicas:
            stack.enter_context(replica)
            wait_until(lambda replica=replica: replica.synced, "the replica is in sync")  # type: ignore[misc]
        sentinels = [stack.enter_context(Sentinel(folder / f"sentinel-{n}", primary)) for n in range(3)]
        for sentinel in sentinels:
            wait_until(lambda sentinel=sentinel: sentinel.knows(2, 2), "each Sentinel knows all servers")  # type: ignore[misc]
        yield [primary, *replicas], sentinels


def sentinel_url(sentinels: list[Sentinel]) -> str:
    """Return the value for `--log`."""
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    return f"redis+sentinel://{hosts}/geocast/0"
