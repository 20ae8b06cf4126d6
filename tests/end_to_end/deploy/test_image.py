"""The container image, built by `make image` with buildah and run like a container.

No container engine works inside a container, where CI often runs. So the test isolates the process by itself: `unshare`
and `chroot` make it process 1 of its own namespace, without rights, on a read-only root. A network of its own, cgroups
and seccomp are left out.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import BIN, Node
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.ports import free_ports

from geocast import commit

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("buildah", "/usr/lib/podman/netavark", "mmdebstrap", "unshare", "make")
BASE, IMAGE = "localhost/base", "localhost/geocast"
VOLUME = "/var/lib/geocast"
BUILD_S = 280.0  # most of this time is for fetching and unpacking the packages of Debian and Python

CONTAIN = """
mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp"
mount --bind "$1" "$0/var/lib/geocast"
shift
exec chroot "$0" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all -- "$@"
"""
"""A shell script: $0 is the image's root, $1 the volume, and the other arguments are the command."""


class Buildah:
    """The program buildah, with its own store in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        config = home / "storage.conf"
        config.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/graph"\nrunroot = "{home}/run"\n')
        self.environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(config)}
        limits = (
            (kind, resource.getrlimit(getattr(resource, f"RLIMIT_{kind.upper()}"))[1]) for kind in ("nofile", "nproc")
        )
        self.run_options = ["--isolation", "chroot", "--network", "host"]
        # Without these options, buildah's limits may exceed those of this process.
        self.limits = [f"--ulimit={kind}={hard}:{hard}" for kind, hard in limits]

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = ended("buildah", *arguments, env=self.environment, timeout=BUILD_S)
        assert not check or done.returncode == 0, done.stderr
        return done

    def base(self, image: str = BASE, packages: str = "python3-venv,ca-certificates", *hooks: str) -> None:
        """Make a base image: Debian with these packages and this machine's certificates.

        `hooks` are further shell commands, for which `$1` is the image's root.
        """
        container = self("from", "scratch").stdout.strip()
        folder = self("mount", container).stdout.strip()
        certificates = 'cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"'
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        done = ended(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", *excluded),
            *(f"--customize-hook={hook}" for hook in (certificates, *hooks)),
            *("--format=directory", "trixie", folder),
            timeout=BUILD_S,
        )
        if done.returncode:
            pytest.skip(f"mmdebstrap makes no base here: {done.stderr.strip().splitlines()[-1:]}")
        self("commit", "--quiet", container, image)
        self("rm", container)

    def image(self, image: str = IMAGE, target: str = "node") -> str:
        """Make an image by `make image`, and return the output."""
        options = " ".join([*self.run_options, *self.limits, "--quiet"])
        names = (f"IMAGE={image}", f"TARGET={target}", f"BASE={BASE}")
        make = ("make", "image", *names, "BUILDER=buildah", f"BUILD_OPTIONS={options}")
        done = ended(*make, cwd=ROOT, env=self.environment, timeout=BUILD_S)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Image:
    """The built image: a container of it, the container's root and the image's configuration."""

    def __init__(self, buildah: Buildah, said: str) -> None:
        self.said = said
        self._buildah = buildah
        self.container = buildah("from", *buildah.limits, IMAGE).stdout.strip()
        self.root = Path(buildah("mount", self.container).stdout.strip())
        self.config = json.loads(buildah("inspect", "--type", "image", IMAGE).stdout)["Docker"]["config"]

    @property
    def command(self) -> list[str]:
        """The default command."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the image's processes."""
        return dict(pair.split("=", 1) for pair in self.config["Env"])

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container as the image's user; it may fail."""
        given = [f"--env={name}={value}" for name, value in settings.items()]
        return self._buildah("run", *self._buildah.run_options, *given, self.container, "--", *command, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built once and removed at the end."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"to build the image takes root and {', '.join(NEEDED)}; missing: {', '.join(missing) or 'root'}")
    home = tmp_path_factory.mktemp("buildah")
    with in_memory(home):
        buildah = Buildah(home)
        try:
            buildah.base()
            yield Image(buildah, buildah.image())
        finally:
            buildah("rm", "--all", check=False)


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[None]:
    """Mount a file system in memory on a folder while the block runs; it unpacks packages twice as fast."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Container(Node):
    """A node as process 1 of a container of the image; the volume is its home."""

    def __init__(self, image: Image, home: Path, keys: Keys, *command: str, **settings: str) -> None:
        """Prepare a container; `command` replaces the image's default command."""
        super().__init__(home, keys, **settings)
        self.image = image
        self.command = [*image.config["Entrypoint"], *command] if command else image.command
        for path in (home, *home.iterdir()):
            os.chown(path, 65532, 65532)

    def launch(self) -> None:
        """Start the image's command and environment on free ports."""
        ports = {"GEOCAST_STREAM": f"0.0.0.0:{self.stream_port}", "GEOCAST_API": f"0.0.0.0:{self.api_port}"}
        given = {"GEOCAST_KEYS": f"{VOLUME}/keys.json", "GEOCAST_DRAIN_S": "2", **ports, **self.settings}
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--wd", str(self.image.root)]
        command = (*isolated, "sh", "-euc", CONTAIN, self.image.root, self.home, *self.command)
        self.spawn(*command, environment={**self.image.environment, **given})

    @property
    def first(self) -> int:
        """The id, outside the container, of its process 1."""
        [pid] = self.children()
        return pid

    def terminate(self) -> int:
        """Send SIGTERM to process 1, and return the exit status."""
        assert self.process
        os.kill(self.first, signal.SIGTERM)
        return self.process.wait(PATIENCE)


def status(pid: int) -> Mapping[str, str]:
    """Return the content of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def names(text: str) -> set[str]:
    """Return the names of packages in the normalized form of PyPI (PEP 503)."""
    return {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^[\w.-]+", text, re.MULTILINE)}


def test_image_contains_the_locked_packages_and_no_build_tools(image: Image):
    """The image's user can change none of its files, and `make image` names the builder."""
    assert "building localhost/geocast with buildah" in image.said
    [packages] = image.root.glob("opt/geocast/lib/python3*/site-packages")
    if (ROOT / ".git").exists():
        assert (packages / "geocast" / "commit.txt").read_text().strip() == commit()
    found = names("\n".join(path.name.partition("-")[0] for path in packages.glob("*.dist-info")))
    locked = names((ROOT / "requirements" / "runtime.txt").read_text())
    assert "geocast" in found
    assert found - {"geocast"} <= locked
    there = {path.name for folder in ("opt/geocast/bin", "usr/bin") for path in (image.root / folder).iterdir()}
    assert not there & {"pip", "pip3", "cc", "gcc", "make", "npm", "node", "uv"}
    ours = [path for path in (image.root / "opt").rglob("*") if path.lstat().st_uid or path.lstat().st_mode & 0o022]
    assert [path for path in ours if not path.is_symlink()] == []


def test_image_configures_a_user_the_listeners_and_a_health_check(image: Image):
    """The user is a number, as Kubernetes' runAsNonRoot requires, and every listener is reachable."""
    assert image.config["User"] == "65532:65532"
    assert image.config["Healthcheck"]["Test"] == ["CMD", "geocast", "health"]
    assert image.environment["GEOCAST_STREAM"] == "0.0.0.0:8765"
    assert image.environment["GEOCAST_API"] == "0.0.0.0:8766"
    assert image.environment["GEOCAST_LISTEN"] == "0.0.0.0:8767"
    refused = image.run(*image.command)
    assert refused.returncode == 2
    assert "no keys" in refused.stderr


def test_image_runs_geocast_push(image: Image, keys: Keys, tmp_path: Path):
    """The process of `docker run … geocast push` keeps its devices in the volume.

    It becomes ready, and shuts down in order on SIGTERM.
    """
    make = ["keygen", "--push", "push.jwks", "--vapid", "vapid.jwks"]
    subprocess.run([BIN / "geocast", *make], cwd=tmp_path, check=True, capture_output=True)
    listen, metrics = free_ports(2)
    settings = {
        "GEOCAST_LISTEN": f"0.0.0.0:{listen}",
        "GEOCAST_METRICS": f"0.0.0.0:{metrics}",
        "GEOCAST_PUSH_KEYS": f"{VOLUME}/push.jwks",
        "GEOCAST_VAPID": f"{VOLUME}/vapid.jwks",
        "GEOCAST_CONTACT": "mailto:ops@city.example",
    }
    with Container(image, tmp_path, keys):
        pass  # a node has made the log
    push = Container(image, tmp_path, keys, "push", **settings)
    push.launch()
    try:
        asked = ("geocast", "health", "--ready", "--api", f"127.0.0.1:{metrics}")
        wait_until(lambda: image.run(*asked).returncode == 0, "it is ready")
        assert push.terminate() == 0, push.output()
        assert (tmp_path / "devices.db").stat().st_uid == 65532
    finally:
        push.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_container_without_root_rights_serves_and_drains_on_sigterm(
    image: Image, keys: Keys, tmp_path: Path, workers: str
):
    """Process 1 is not root and has a read-only root; SIGTERM closes its sessions with 1012."""
    with Container(image, tmp_path, keys, GEOCAST_WORKERS=workers) as node:
        spot, first = ground(), status(node.first)
        assert first["NSpid"].split()[-1] == "1"
        assert set(first["Uid"].split() + first["Gid"].split()) == {"65532"}
        assert int(first["CapEff"], 16) == 0
        mounts = Path(f"/proc/{node.first}/mounts").read_text()
        assert re.search(r"^\S+ / \S+ ro,", mounts, re.MULTILINE)

        with node.join(place(spot)) as phone:
            phone.listen(node.publish(alert(spot))["id"], 1)
            for ready in ((), ("--ready",)):
                health = image.run("geocast", "health", *ready, GEOCAST_API=f"0.0.0.0:{node.api_port}")
                assert (health.returncode, health.stderr) == (0, ""), health
            os.kill(node.first, signal.SIGTERM)
            assert phone.wire.close_code() == 1012
        assert node.process
        assert node.process.wait(PATIENCE) == 0, node.output()
        assert (tmp_path / "geocast.db").stat().st_uid == 65532
    gone = image.run("geocast", "health", GEOCAST_API=f"0.0.0.0:{node.api_port}")
    assert gone.returncode == 1
    assert f"geocast: 0.0.0.0:{node.api_port}: no answer: Connection refused" in gone.stderr
