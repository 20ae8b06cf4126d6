"""The commands of guides and pages for operators, typed into a shell as printed. Only ports and folders are changed."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.node import BIN, clean_environment
from end_to_end.kit.shell import PORTS, Shell, blocks, is_ready, moved
from end_to_end.kit.times import wait_until
from support.pages import ROOT, blocks_of
from support.redis_server import RedisServer, missing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder in which the commands are typed."""
    return tmp_path


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Start a shell in the folder."""
    shell = Shell(tmp_path, tmp_path / "said.txt")
    shell.type(f"export PYTHONPATH={ROOT} GEOCAST_API_URL=http://127.0.0.1:{PORTS[8766]}")
    yield shell
    shell.end()


def typed(script: str, folder: Path) -> str:
    """Type a script into a shell that ends with it; require that all went well, and return what was printed."""
    environment = clean_environment(PATH=f"{BIN}:{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        ["bash", "-eo", "pipefail"],
        input=script,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(*programs: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test if one of the programs is not installed."""
    absent = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"there is no {', '.join(absent)}")


@needs("curl", "openssl")
def test_first_warning_of_the_cap_guide_is_published_repeated_and_cancelled(shell: Shell, folder: Path):
    """The message of the page is a CAP message that `POST /v1/cap` accepts (CP10, CP18)."""
    begin, post = blocks("A first warning", "sh", "docs/guide/cap.md")
    shell.type(begin)
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    shell.type(post)
    wait_until(lambda: '"outcome":"published"' in shell.said(), lambda: f"it is published: {shell.said()}")
    assert "201 Created" in shell.said()
    assert "warning.xml: CAP 1.2, unsigned: Alert, Actual, Public" in shell.said()
    again = post.rpartition("\ncurl")[2]
    shell.type(f"curl{again}")
    wait_until(lambda: '"outcome":"repeated"' in shell.said(), lambda: f"it is repeated: {shell.said()}")

    message = folder / "warning.xml"
    text = message.read_text()
    [reference] = re.findall(r"^`(<references>.*)`", (ROOT / "docs/guide/cap.md").read_text("utf-8"), re.MULTILINE)
    [sent] = re.findall("<sent>(.*)</sent>", text)
    text = text.replace(">Alert<", ">Cancel<").replace(">first-warning<", ">first-cancel<")
    message.write_text(text.replace("</scope>", f"</scope>\n  {reference.replace('SENT', sent)}"))
    shell.type(f"curl{again}")
    wait_until(lambda: '"outcome":"cancelled"' in shell.said(), lambda: f"it is cancelled: {shell.said()}")


@needs("openssl")
def test_secret_of_the_cap_guide_has_the_printed_hash(folder: Path):
    """The file has the secret on one line, and the hash is that of the secret without the line end."""
    [make] = blocks("Begin", "sh", "docs/guide/cap.md")
    printed = typed(f"{make}\ntr -d '\\n' < secret | sha256sum", folder).split()
    assert printed[0] == printed[2]
    assert 32 <= len((folder / "secret").read_text().strip()) <= 255


@needs("jq")
def test_zones_renamed_by_the_command_of_the_cap_guide_are_accepted(folder: Path):
    """`geocast check --cap-zones` reads the file that jq has written."""
    [rename] = blocks("Zones", "sh", "docs/guide/cap.md")
    [shown] = [block.text for block in blocks_of("docs/guide/cap.md") if '"EMMA_ID", "value": "AT301"' in block.text]
    zones = json.loads(shown)
    for feature in zones["features"]:
        feature["properties"] = {"code": feature["properties"]["value"], "name": "somewhere"}
    (folder / "meteoalarm.json").write_text(json.dumps(zones))
    (folder / "sources.toml").write_text('[sources.met]\napprover = "x"\nsenders = ["*"]\n')
    check = "geocast check --keys keys.jwks --cap-sources sources.toml --cap-zones zones.geojson"
    said = typed(f"geocast keygen\n{rename}\n{check}", folder)
    assert re.search(r"zones.*1", said)


@needs("curl")
def test_command_of_the_feed_guide_serves_a_feed(shell: Shell):
    """The feed's listener answers."""
    [serve] = blocks("The public feed", "sh", "docs/guide/feed.md")
    shell.type(f"geocast keygen\n{serve}")
    wait_until(lambda: is_ready(PORTS[8766]), lambda: f"the node is ready: {shell.said()}")
    answer = httpx.get(f"http://127.0.0.1:{PORTS[8764]}/v1/alerts.geojson", trust_env=False)
    assert answer.json()["type"] == "FeatureCollection"


def test_commands_of_the_push_guide_start_a_process_that_becomes_ready(shell: Shell):
    """`geocast push` reads the log of a node, which runs already."""
    [begin] = blocks("In five minutes", "sh", "docs/guide/push.md")
    shell.type(f"geocast keygen\n{moved('geocast serve --keys keys.jwks --log sqlite:geocast.db &')}\n{begin}")
    wait_until(lambda: is_ready(PORTS[9104]), lambda: f"it is ready: {shell.said()}")


def test_commands_of_the_settings_page_publish_an_alert(shell: Shell):
    """A script can use the line that `serve --dev` prints."""
    [script] = blocks("The token of `--dev`", "sh", "docs/reference/settings.md")
    shell.type(script)
    wait_until(lambda: '"revision": 1' in shell.said(), lambda: f"it is published: {shell.said()}")


def test_commands_of_the_web_client_serve_the_example(shell: Shell):
    """The page and the module that it imports are served."""
    [serve] = blocks("In ten lines", "sh", "client_demo/web/geocast/README.md")
    shell.type(f"cd {ROOT}")
    shell.type(serve.replace("geocast serve ", "geocast serve --log memory: "))
    page = f"http://127.0.0.1:{PORTS[8080]}"

    def is_served() -> bool:
        try:
            return httpx.get(f"{page}/example.html", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_served, lambda: f"the page is served: {shell.said()}")
    assert httpx.get(f"{page}/geocast.js", trust_env=False).status_code == 200


def test_printed_errors_of_the_settings_page_are_those_of_the_command(folder: Path):
    """Each command of the session prints the lines below it, and ends with status 2."""
    [session] = blocks("Settings that can't work", "", "docs/reference/settings.md")
    for command, shown in re.findall(r"^\$ (.*)\n((?:geocast: .*\n)*)", session, re.MULTILINE):
        done = subprocess.run(
            [BIN / "geocast", *command.split()[1:]],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, shown)


def test_feed_check_of_the_review_desk_page_reads_its_records(folder: Path):
    """The description and the records of the page fit together."""
    page = "docs/guide/review-desk.md"
    check = blocks("Feeds", "sh", page)[0].splitlines()[0]
    [described] = blocks("Feeds", "toml", page)
    [records] = blocks("Feeds", "csv", page)
    (folder / "my-city.toml").write_text(described)
    (folder / "calls.csv").write_text(records)
    said = typed(check, folder)
    assert re.search(r"incidents\W+2\b", said)


@needs("openssl")
def test_certificates_made_by_the_commands_for_redis_are_signed_by_their_authority(folder: Path):
    """Each machine's certificate names its address."""
    make = blocks("Certificates for Redis", "sh", "docs/operations/several-nodes.md")[0]
    typed(make, folder)
    for ip in ("10.0.0.11", "10.0.0.12", "10.0.0.13"):
        checked = typed(f"openssl verify -CAfile ca.crt -verify_ip {ip} {ip}.crt", folder)
        assert checked == f"{ip}.crt: OK\n"


def test_commands_that_delete_old_ledger_files_keep_what_the_page_says(folder: Path):
    """Contents are kept for 30 days, the chain for two years."""
    [delete] = blocks("Running it", "sh", "docs/operations/ledger.md")
    ages = {"2031-05-01.jsonl": 400, "2031-05-01.content.jsonl": 40, "2031-06-01.content.jsonl": 20}
    ages |= {"2029-01-01.jsonl": 800, "2029-01-01.content.jsonl": 800}
    for name, days in ages.items():
        (folder / name).touch()
        os.utime(folder / name, (then := time.time() - days * 86_400, then))
    typed(delete.replace("/var/lib/geocast-ledger", str(folder)), folder)
    assert {path.name for path in folder.iterdir()} == {"2031-05-01.jsonl", "2031-06-01.content.jsonl"}


@needs("redis-cli")
@pytest.mark.skipif(bool(missing()), reason=missing() or "")
def test_commands_that_delete_a_log_in_redis_keep_the_devices(folder: Path):
    """Only the keys of the log are deleted."""
    [delete] = blocks("Purging", "sh", "docs/operations/upgrades.md")
    with RedisServer(folder) as server:
        cli = f"redis-cli -p {server.port}"
        before = "\n".join(f"{cli} SET {name} 1" for name in ("{geocast}:log", "{geocast}:push:device", "another"))
        delete = re.sub(r'^cli=".*"$', f'cli="{cli}"', delete, flags=re.MULTILINE).replace("export REDISCLI_AUTH=…", "")
        left = typed(f"{before}\n{delete}\n{cli} KEYS '*'", folder)
    assert set(left.split()[-2:]) == {"{geocast}:push:device", "another"}
    assert "{geocast}:log" not in left
