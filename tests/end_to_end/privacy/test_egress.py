"""The firewall of docs/deploy/push-egress.*, by which the unit reaches only push services and Redis.

Two network namespaces are connected by a virtual cable. One is the machine with its firewall and resolver; the other is
the Internet, with the resolver that the machine asks. Systemd is not available here, so the test makes the unit's
cgroup.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.kit.times import wait_until

from geocast.push.addresses import DEFAULT_SERVICES

DEPLOY = Path(__file__).resolve().parents[3] / "docs" / "deploy"
NEEDED = ("nft", "dnsmasq", "ip", "nsenter")
CGROUPS = Path("/sys/fs/cgroup")  # where nft looks for cgroups
HERE, SERVICE, ELSEWHERE = "192.0.2.1", "192.0.2.2", "192.0.2.3"  # addresses for documentation (RFC 5737)
REDIS = "10.0.0.12"
NAMES = ("fcm.googleapis.com", "updates.push.services.mozilla.com", "web.push.apple.com", "db5p.notify.windows.com")

WORLD = """
import socket, sys, threading
def serve(server):
    while True:
        server.accept()[0].close()
for address in sys.argv[1:]:
    for port in (443, 80, 6379):
        server = socket.create_server((address, port))
        threading.Thread(target=serve, args=(server,)).start()
print("open", flush=True)
"""
PROBE = """
import os, socket, sys
cgroup, *wanted = sys.argv[1:]
if cgroup:
    with open(f"{cgroup}/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
for what in wanted:
    host, _, port = what.partition(":")
    if not port:  # a name for the machine's resolver
        question = b"".join(bytes([len(part)]) + part.encode() for part in host.split(".")) + b"\\0\\0\\1\\0\\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(20)
            asking.sendto(b"ab\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + question, ("127.0.0.1", 53))
            print(socket.inet_ntoa(asking.recv(512)[-4:]))
        continue
    try:
        socket.create_connection((host, int(port)), 20).close()
        print("open")
    except OSError as error:
        print(type(error).__name__)
"""


def run(*command: str) -> str:
    """Run a command, assert that it succeeds, and return its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Machine:
    """The machine: the name of its network namespace, and the cgroup of the unit."""

    network: str
    cgroup: Path

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs `command` in the machine's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self.network}", "--", *command]

    def asks(self, *what: str, as_the_unit: bool = True) -> list[str]:
        """Resolve names and open connections, one after the other, and return the outcomes."""
        unit = str(self.cgroup) if as_the_unit else ""
        return run(*self.inside(sys.executable, "-c", PROBE, unit, *what)).split()


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process during the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert process.stdout
        process.stdout.close()


@contextlib.contextmanager
def unit() -> Iterator[Path]:
    """Make a cgroup inside a slice, as systemd does for a service."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    found = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2" and Path(mount[1]).is_relative_to(CGROUPS)]
    if not found:
        pytest.skip("there is no cgroup2 where nft looks for it")
    made = found[0] / f"geocast{os.getpid()}.slice" / "geocast-push.service"
    made.mkdir(parents=True)
    try:
        yield made
    finally:
        made.rmdir()
        made.parent.rmdir()


@contextlib.contextmanager
def networks() -> Iterator[tuple[str, str]]:
    """Make two connected network namespaces, the machine's and the Internet's, and yield their names."""
    ours, theirs = (f"gc{os.getpid()}{letter}" for letter in "ab")
    with contextlib.ExitStack() as stack:
        for name in (ours, theirs):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "cable", "netns", ours, "type", "veth", "peer", "name", "cable", "netns", theirs)
        for name, addresses in ((ours, (HERE, "10.0.0.1")), (theirs, (SERVICE, ELSEWHERE, REDIS))):
            for address in addresses:
                run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
        yield ours, theirs


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Start the machine with both files, connected to servers and a resolver on the Internet."""
    if missing := [name for name in NEEDED if shutil.which(name) is None] or [] if os.getuid() == 0 else ["root"]:
        pytest.skip(f"to try a firewall takes {', '.join(missing)}")
    alone = ("--conf-file=/dev/null", "--no-daemon", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root")
    world = [f"--address=/{name}/{SERVICE}" for name in NAMES] + [f"--address=/other.example/{ELSEWHERE}"]
    resolver = (*alone[1:], f"--conf-file={DEPLOY / 'push-egress.dnsmasq.conf'}", f"--server={SERVICE}")
    with contextlib.ExitStack() as stack:
        cgroup, (ours, theirs) = stack.enter_context(unit()), stack.enter_context(networks())
        machine, beyond = Machine(ours, cgroup), Machine(theirs, cgroup)
        run(*machine.inside("nft", "-f", str(DEPLOY / "push-egress.nft")))
        path = str(cgroup.relative_to(CGROUPS))
        # In production, systemd adds the cgroup because of the line `NFTSet=` in the unit.
        run(*machine.inside("nft", "add", "element", "inet", "push_egress", "unit", f'{{ "{path}" }}'))
        servers = stack.enter_context(running(*beyond.inside(sys.executable, "-c", WORLD, SERVICE, ELSEWHERE, REDIS)))
        assert servers.stdout
        assert servers.stdout.readline() == "open\n"
        listen = (f"--listen-address={SERVICE}", "--bind-interfaces")
        stack.enter_context(running(*beyond.inside("dnsmasq", *alone, *listen, *world)))
        stack.enter_context(running(*machine.inside("dnsmasq", *resolver)))
        wait_until(lambda: answers(machine), "the machine's resolver answers")
        yield machine


def answers(machine: Machine) -> bool:
    """Return whether the machine's resolver, and the resolver that it asks, answer."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return machine.asks("other.example", as_the_unit=False) == [ELSEWHERE]
    return False


def test_push_unit_can_reach_only_redis_and_push_services_with_resolved_names(machine: Machine) -> None:
    """Before a name has been resolved, its address is blocked."""
    refused = "ConnectionRefusedError"
    assert machine.asks(f"{SERVICE}:443", f"{ELSEWHERE}:443") == [refused, refused]
    assert machine.asks("other.example", f"{ELSEWHERE}:443") == [ELSEWHERE, refused]
    assert machine.asks(NAMES[1], f"{SERVICE}:443") == [SERVICE, "open"]
    assert machine.asks(f"{SERVICE}:80", f"{ELSEWHERE}:443", f"{REDIS}:443") == [refused] * 3
    assert machine.asks(f"{REDIS}:6379") == ["open"]
    assert machine.asks(f"{ELSEWHERE}:443", f"{ELSEWHERE}:80", as_the_unit=False) == ["open", "open"]


@pytest.mark.parametrize("name", NAMES)
def test_push_unit_can_reach_each_default_push_service(machine: Machine, name: str) -> None:
    """The names include one below `*.notify.windows.com`."""
    assert machine.asks(name, f"{SERVICE}:443") == [SERVICE, "open"]


def test_systemd_accepts_the_push_unit_and_its_nftset_line_names_the_firewall_set(tmp_path: Path) -> None:
    """The line `NFTSet=` is commented out in the file; the test enables it and runs `systemd-analyze verify`."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "geocast-push.service").read_text("utf-8").replace("/opt/geocast/bin/geocast", "/bin/true")
    text, count = re.subn(r"^#(?=NFTSet=)", "", text, flags=re.MULTILINE)
    assert count == 1
    table, of_unit = re.findall(r"^NFTSet=cgroup:inet:(\w+):(\w+)$", text, re.MULTILINE)[0]
    assert re.search(
        rf"^table inet {table} {{\n    set {of_unit} {{", (DEPLOY / "push-egress.nft").read_text(), re.MULTILINE
    )
    (tmp_path / "geocast-push.service").write_text(text)
    verify = ["systemd-analyze", "verify", str(tmp_path / "geocast-push.service")]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, "geocast-push.service:" in done.stderr) == (0, False), done.stderr


def test_dnsmasq_file_lists_exactly_the_default_push_services() -> None:
    [line] = re.findall(r"^nftset=/(.*)/4#", (DEPLOY / "push-egress.dnsmasq.conf").read_text("utf-8"), re.MULTILINE)
    assert set(line.split("/")) == {each.removeprefix("*.") for each in DEFAULT_SERVICES.split(",")}
