"""The Python client as a package: built, installed into an empty folder, and used by its README's programs.

The programs listen, publish, call for help, and respond. The packages that the client requires come from the
environment of the tests. The client itself is loaded only from that folder.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE
from end_to_end.kit.node import clean_environment
from end_to_end.kit.push import Push
from end_to_end.kit.responders import dispatch_token, responder_token, responding_node
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from support.command import ended
from support.push_service import PushService

import geocast

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "client_demo" / "python"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with `geocast_client`, installed from a wheel."""
    home = tmp_path_factory.mktemp("client")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--isolated"]
    subprocess.run(
        [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", home, CLIENT], check=True
    )
    [wheel] = home.glob("geocast_client-*.whl")
    subprocess.run([*pip, "install", "--no-index", "--no-deps", "--target", home / "site", wheel], check=True)
    return home / "site"


def elsewhere(site, **settings):
    """Return the environment of a user who has the package but no source tree."""
    return clean_environment(**settings) | {"PYTHONPATH": str(site)}


def programs(node):
    """Return the Python programs of the README, changed for this node's ports."""
    text = (CLIENT / "README.md").read_text("utf-8")
    text = text.replace("127.0.0.1:8765", f"127.0.0.1:{node.stream_port}")
    return re.findall(
        r"^```python\n(.*?)^```", text.replace("127.0.0.1:8766", f"127.0.0.1:{node.api_port}"), re.DOTALL | re.MULTILINE
    )


def test_installed_client_package_is_complete(site):
    """The package has every module, types and a licence, and works without the source tree."""
    package = site / "geocast_client"
    assert {path.name for path in CLIENT.glob("*.py")} <= {path.name for path in package.iterdir()}
    assert (package / "py.typed").exists()
    [licence] = site.glob("geocast_client-*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()
    program = (
        "import geocast_client as g; from importlib.metadata import version;"
        "[getattr(g, name) for name in g.__all__]; print(g.__version__, version('geocast-client')); import client_demo"
    )
    done = ended(sys.executable, "-c", program, cwd=site, env=elsewhere(site))
    assert done.stdout.split() == [geocast.__version__] * 2
    assert done.stderr.endswith("No module named 'client_demo'\n"), done.stderr


def test_mypy_checks_programs_with_the_types_of_the_client_package(site, tmp_path):
    """Strict mypy accepts a correct program and finds the error in a wrong one."""
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("from geocast_client import Client, Place\nClient('ws://a', [Place.at(1, 2)]).stop()\n")
    bad.write_text("from geocast_client import Place\nPlace.at('north')\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", tmp_path / "cache", good, bad]
    environment = elsewhere(site) | {"MYPYPATH": str(site)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = {line.partition(":")[0] for line in done.stdout.splitlines() if ": error:" in line}
    assert found == {"bad.py"}, done.stdout


def test_readme_programs_publish_and_receive_an_alert(site, own_node, tmp_path):
    node, output = own_node, tmp_path / "heard.txt"
    listen, _verify, _sleep, publish, *_calls = programs(node)
    tokens = {
        "PHONE": node.keys.token(sub="phone", scope=PHONE_SCOPE),
        "DESK": node.keys.token(sub="desk-7", scope=DESK_SCOPE),
    }
    environment = elsewhere(site, **tokens)
    with output.open("wb") as file:
        listener = subprocess.Popen(
            [sys.executable, "-u", "-c", listen], cwd=tmp_path, env=environment, stdout=file, stderr=file
        )
    try:
        done = ended(sys.executable, "-c", publish, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("published, until 20")
        wait_until(output.read_text, "it is heard")
    finally:
        listener.kill()
        listener.wait()
    assert output.read_text() == "new Building on fire. Keep windows closed.\n"


def test_readme_program_registers_for_push_and_shows_a_push(site, own_node, tmp_path):
    """The endpoint comes from a push service."""
    then = (
        "s = asyncio.run(register(*sys.argv[1:])); print('registered'); on_push(s, bytes.fromhex(sys.stdin.readline()))"
    )
    certificate = make_certificate(tmp_path)
    with PushService(certificate) as service, Push(own_node, service) as push:
        phone = service.phone(asleep=True)
        program = programs(own_node)[2].replace("https://alerts.example", f"http://127.0.0.1:{push.port}")
        sleeper = subprocess.Popen(
            [sys.executable, "-u", "-c", f"import asyncio, sys\n{program}\n{then}", phone.endpoint, push.token()],
            cwd=tmp_path,
            env=elsewhere(site),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert sleeper.stdout.readline() == "registered\n", sleeper.stderr.read()
            own_node.publish(alert((32.78, -96.80), headline="Smoke."))
            service.until(lambda: phone.requests)
            told, errors = sleeper.communicate(phone.requests[0].body.hex() + "\n", timeout=60)
        finally:
            sleeper.kill()
            sleeper.wait()
    assert errors == ""
    assert "body='Smoke.\\nuntil " in told
    assert told.endswith("and close []\n")


def test_readme_programs_open_and_answer_a_call(site, tmp_path):
    """The responder gets the place, and the dispatcher sees the responder."""
    with responding_node(tmp_path) as node:
        *_others, respond, dispatch = programs(node)
        tokens = {"RESPONDER": responder_token(node, "r-51c0"), "DISPATCH": dispatch_token(node)}
        environment = elsewhere(site, **tokens)
        options = {
            "cwd": tmp_path,
            "env": environment,
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        responder = subprocess.Popen([sys.executable, "-c", respond], **options)
        try:
            done = subprocess.run([sys.executable, "-c", dispatch], **options, timeout=60, check=False)
            told, errors = responder.communicate(timeout=30)
        finally:
            responder.kill()
            responder.wait()
    assert (done.stdout, done.stderr) == ("r-51c0 is there\n", "")
    assert errors == ""
    assert told.splitlines()[1:] == ["go to Union Station, platform 2", "stand down: over"]
    assert told.startswith("Adult, not breathing. ")
