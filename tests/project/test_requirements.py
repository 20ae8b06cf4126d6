"""Tests of requirements/system.sh, which installs Debian packages for the tests and names those that are unavailable.

The real script runs on a fake machine: a folder contains its PATH, its /usr/sbin and a package manager that knows
which command each package provides.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "requirements" / "system.sh"
ROWS = SCRIPT.read_text("utf-8").partition("<<'ROWS'\n")[2].partition("\nROWS\n")[0]
TABLE = {command: packages.split(",") for command, packages, *_ in map(str.split, ROWS.splitlines())}
SERVICES = sorted({service for _, _, service, *_ in map(str.split, ROWS.splitlines())} - {"-"})
TOOLS = ["sh", "cat", "tr", "grep", "sort", "tee", "chmod", "rm", "id", "touch"]

APT = """\
echo "$@" >>"$MACHINE/asked"
[ "$1" = install ] || exit 0
[ -x "$SBIN/policy-rc.d" ] || exit 3 # a service would be started
shift 4
for package; do case " $NOWHERE " in *" $package "*) exit 100 ;; esac; done
for package; do
%s
done
"""


class Machine:
    """A folder with commands that stands for a machine."""

    def __init__(self, home: Path):
        self.home, self.bin, self.sbin = home, home / "bin", home / "sbin"
        self.bin.mkdir()
        self.sbin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        brings = [
            f'[ "$package" != {packages[0]} ] || {{ touch "$SBIN/{name}"; chmod 755 "$SBIN/{name}"; }}'
            for name, packages in TABLE.items()
        ]
        self.add("apt-get", APT % "\n".join(brings))
        self.add("sudo", "exit 1")
        self.add("systemctl", 'echo "$@" >>"$MACHINE/services"')

    def add(self, command, text="exit 0"):
        """Add a command."""
        path = self.bin / command
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, nowhere="", user="0"):
        """Run the script and return its output."""
        self.bin.joinpath("id").unlink(missing_ok=True)
        self.add("id", f"echo {user}")
        known = {"PATH": str(self.bin), "SBIN": str(self.sbin), "MACHINE": str(self.home), "NOWHERE": nowhere}
        done = subprocess.run(["sh", SCRIPT], env=known, capture_output=True, text=True, check=True)
        assert not done.stdout
        return done.stderr

    def read(self, name):
        """Return the lines that a command wrote."""
        path = self.home / name
        return path.read_text("utf-8").splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path):
    """Return a machine with nothing installed."""
    return Machine(tmp_path)


def test_table_of_system_packages_has_every_program_that_tests_use():
    """If a program were missing from the table, its tests could be skipped although Debian has the program."""
    wanted = set()
    for path in (ROOT / "tests").rglob("*.py"):
        wanted |= set(re.findall(r"""(?:which|program)\("([a-z-]+)"\)""", path.read_text("utf-8")))
    wanted -= {"node", "gcc", "chromium-browser"}  # from PyPI, or other names of listed programs
    wanted -= {"prlimit", "dpkg-query"}  # every Debian has them
    assert len(wanted) > 5
    assert wanted - set(TABLE) == set()
    assert len(TABLE) == len(ROWS.splitlines()), "a command has a row of its own, and one"


def test_script_installs_all_packages_on_a_bare_machine_and_starts_no_service(machine):
    """One call installs all packages.

    Services are not started (policy-rc.d forbids it during the call) and not enabled.
    """
    assert machine.run() == ""
    packages = sorted({package for packages in TABLE.values() for package in packages})
    assert machine.read("asked") == [
        "update -qq",
        f"install -y -qq --no-install-recommends {' '.join(packages)}",
    ]
    assert machine.read("services") == [f"disable {service}" for service in SERVICES]
    assert not (machine.sbin / "policy-rc.d").exists()


def test_script_changes_nothing_on_a_machine_with_all_packages(machine):
    """A daemon in /usr/sbin, which is not in the PATH, counts as installed."""
    for command in TABLE:
        machine.add(command)
    (machine.bin / "haproxy").rename(machine.sbin / "haproxy")
    assert machine.run() == ""
    assert machine.read("asked") == machine.read("services") == []


def test_script_installs_the_other_packages_if_one_is_unavailable(machine):
    """One line names the missing package. Services that were installed before stay enabled."""
    machine.add("redis-server")
    policy = machine.sbin / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    said = machine.run(nowhere="nginx")
    assert said == "geocast: some tests are skipped; to run them: apt-get install nginx\n"
    assert (machine.sbin / "promtool").exists()
    assert "disable redis-server" not in machine.read("services")
    assert policy.exists(), "it was not ours"


def test_script_names_the_missing_packages_in_one_line_without_root_rights(machine):
    """`sudo -n` fails, so nothing is installed."""
    for command in set(TABLE) - {"haproxy", "cc"}:
        machine.add(command)
    said = machine.run(user="1000")
    assert said == "geocast: some tests are skipped; to run them: apt-get install gcc haproxy libc6-dev\n"
    assert machine.read("asked") == []
