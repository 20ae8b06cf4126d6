"""`geocast check`: it shows the settings and everything that is wrong, and creates and changes nothing."""

import io
import json
import os
import sqlite3
import stat
import sys
import time
from contextlib import closing

import pytest
from end_to_end.kit.key_server import KeyServer
from end_to_end.kit.tls import make_certificate
from support.ports import a_free_port
from support.redis_server import RedisServer, missing

from geocast import cli
from geocast.alertlog.sqlite.log_file import opened
from geocast.auth.tokens import make_key, sign
from geocast.cli.check import without_secrets


def table(outcome):
    """Return the settings that the command printed: option -> (value, origin)."""
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith("--")]
    return {row[0]: (" ".join(row[1:-1]), row[-1]) for row in rows}


def errors(outcome):
    """Return the error lines that the command printed."""
    assert all(line.startswith("geocast: error: ") for line in outcome.err.splitlines())
    return [line.removeprefix("geocast: error: ") for line in outcome.err.splitlines()]


def everything_in(folder):
    """Return all files of a folder with their bytes, times and modes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        held = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[path] = held, status.st_mtime_ns, status.st_mode, status.st_ino
    return found


@pytest.fixture
def log(tmp_path):
    """A log in a file that no process has open."""
    path = tmp_path / "geocast.db"
    opened(path)[0].close()
    return path


# ---- settings that are shown ---------------------------------------------------------------------------------


def test_each_setting_is_shown_with_its_value_and_origin(geocast, keys):
    """`geocast serve` would use the same values with these options and this environment."""
    outcome = geocast("check", "--keys", "keys.jwks", "--drain-s", "5", GEOCAST_LOG="memory:", GEOCAST_DEV="true")
    assert (outcome.status, outcome.err) == (0, "")
    shown = table(outcome)
    assert shown.keys() == {option.opts[0] for option in cli.cli.commands["serve"].params}
    assert shown["--keys"] == ("keys.jwks", "option")
    assert shown["--drain-s"] == ("5.0", "option")
    assert shown["--log"] == ("memory:", "GEOCAST_LOG")
    assert shown["--dev"] == ("on", "GEOCAST_DEV")
    assert shown["--workers"] == ("1", "default")
    assert "policy: neighbourhood, with 12 categories" in outcome.out


def test_check_command_has_the_same_options_as_serve():
    """Both commands use one list of options."""
    of_serve, of_check = (cli.cli.commands[name].params for name in ("serve", "check"))
    assert [option.to_info_dict() for option in of_serve] == [option.to_info_dict() for option in of_check]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://10.0.0.1:6379/2", "redis://10.0.0.1:6379/2"),
        ("redis://:hush@h", "redis://***@h"),
        ("rediss://user:hush@h:1/0?ca=/etc/ca.pem&prefix=p", "rediss://***@h:1/0?ca=/etc/ca.pem&prefix=p"),
        (
            "redis+sentinel://a:1,[::1]:2/name?sentinel_password=hush",
            "redis+sentinel://a:1,[::1]:2/name?sentinel_password=***",
        ),
        ("https://u:hush@id.example/keys?token=hush&hush", "https://***@id.example/keys?token=***&***"),
        ("redis://:hush", "redis: (not shown: it may hold a password)"),
        ("redis://u:hu@sh@h", "redis: (not shown: it may hold a password)"),
        ("redis://u:hu/sh@h", "redis: (not shown: it may hold a password)"),
        ("redis:hush@h", "redis: (not shown: it may hold a password)"),
        ("REDIS://:hush@h", "REDIS://***@h"),
        (" redis://u:hush@h", "redis: (not shown: it may hold a password)"),
        ("hush@h", "(not shown: it may hold a password)"),
        ("sqlite:redis://u:hush@h", "sqlite: (not shown: it may hold a password)"),
        ("sqlite:./redis://u:hush@h", "sqlite: (not shown: it may hold a password)"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("/run/geocast@1/geocast:2.db", "/run/geocast@1/geocast:2.db"),
        ("sqlite:/var/lib/geocast.db", "sqlite:/var/lib/geocast.db"),
        ("keys.jwks", "keys.jwks"),
    ],
)
def test_password_in_url_is_never_shown(text, shown):
    """This holds for valid and malformed URLs."""
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "url", ["redis://:hush", "redis://u:hush@10.0.0.1/x", "redis://u:hu/sh@h", "postgres://u:hush@h"]
)
def test_refused_url_shows_no_password(geocast, keys, url):
    """Errors never repeat a refused value."""
    outcome = geocast("check", "--keys", "keys.jwks", GEOCAST_LOG=url)
    assert outcome.status == 2
    assert "hush" not in outcome.out + outcome.err
    assert "hu/sh" not in outcome.out + outcome.err


@pytest.mark.parametrize("option", [each for each in cli.cli.commands["serve"].params if not each.is_flag])
@pytest.mark.parametrize("url", ["redis://u:hush@127.0.0.1:1/0", "REDIS://u:hush@h", " redis://u:hush@h"])
def test_password_in_any_option_is_hidden(geocast, keys, option, url):
    """An operator shows the output to others; what a new option takes is hidden as well."""
    outcome = geocast("check", "--keys", "keys.jwks", option.opts[0], url)
    assert "hush" not in outcome.out


def test_check_command_fetches_keys_from_a_url(geocast, tmp_path, monkeypatch):
    """`geocast serve` fetches them when it starts, and `geocast token --check` does so too."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    private, public = make_key("k")
    server = KeyServer({"keys": [public]})
    token = sign(private, "phone", ["alerts:receive"], int(time.time()), 60)
    with server.serving(certificate) as url:
        outcome = geocast("check", "--keys", url)
        assert (outcome.status, outcome.err) == (0, "")
        assert "keys: k (EdDSA)" in outcome.out
        assert "tenant" not in outcome.out
        assert geocast("token", "--check", GEOCAST_TOKEN=token, GEOCAST_KEYS=url).status == 0
        server.status = 503
        outcome = geocast("check", "--keys", url)
    assert outcome.status == 2
    assert "answered 503, not 200" in outcome.err


# ---- mistakes that are reported ------------------------------------------------------------------------------


def test_correct_settings_give_exit_status_0(geocast, tmp_path, keys):
    """The command finds that it could create the log's file, but does not create it."""
    before = everything_in(tmp_path)
    outcome = geocast("check", "--keys", "keys.jwks")
    assert (outcome.status, outcome.err) == (0, "")
    assert "log: geocast.db: a file can be made there" in outcome.out
    assert everything_in(tmp_path) == before


def test_check_shows_number_of_cap_events_in_policy(geocast, keys):
    """An unknown built-in policy is refused (P13, P17)."""
    outcome = geocast("check", "--keys", "keys.jwks", "--policy", "builtin:public-warning")
    assert outcome.status == 0
    assert "policy: public-warning, with 26 categories; 0 are never alerted; 26 claim events of CAP" in outcome.out
    refused = geocast("check", "--keys", "keys.jwks", "--policy", "builtin:rivers")
    assert errors(refused) == ["policy builtin:rivers: is not a built-in policy; neighbourhood and public-warning are"]


def test_check_counts_warning_zones_or_reports_their_mistakes(geocast, tmp_path, keys):
    """Zones are only allowed together with CAP sources (CZ1)."""
    square = [[10, 50], [11, 50], [11, 51], [10, 51], [10, 50]]
    properties = {"code": "EMMA_ID", "value": "AT301"}
    one = {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [square]}}
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    bad.write_text(json.dumps({"type": "FeatureCollection", "features": [one | {"geometry": None}]}))
    (tmp_path / "sources.toml").write_text('[sources.met]\napprover = "the duty forecaster"\nsenders = ["*"]\n')
    source = ("--keys", "keys.jwks", "--cap-sources", "sources.toml")
    outcome = geocast("check", *source, GEOCAST_CAP_ZONES="good.json:good.json")
    assert (outcome.status, outcome.err) == (0, "")
    assert "cap-zones: 1 of EMMA_ID; " in outcome.out
    warning = "warning: policy neighbourhood: no category claims events of CAP, so every message of CAP is refused"
    assert warning in outcome.out
    assert warning not in geocast("check", *source, "--policy", "builtin:public-warning").out
    assert warning not in geocast("check", "--keys", "keys.jwks").out
    assert table(outcome)["--cap-zones"] == ("good.json, good.json", "GEOCAST_CAP_ZONES")
    assert errors(geocast("check", *source, "--cap-zones", "bad.json")) == [
        "zones bad.json: feature 0 (EMMA_ID AT301): geometry must be a Polygon or a MultiPolygon"
    ]
    assert errors(geocast("check", "--keys", "keys.jwks", "--cap-zones", "good.json")) == [
        "--cap-zones is for --cap-sources"
    ]


def test_every_mistake_is_reported_on_its_own_line(geocast, tmp_path):
    """The command exits with status 2."""
    (tmp_path / "policy.toml").write_text('names = "x"\n[categoris]\n')
    (tmp_path / "revoked.toml").write_text("[")
    outcome = geocast(
        "check",
        *("--stream", "8765", "--api", "192.0.2.1:8766", "--workers", "0", "--log-replicas", "2"),
        *("--origins", "https://app.example,https://app.example/map"),
        *("--policy", "policy.toml", "--revoked", "revoked.toml", "--keys", "nowhere.jwks"),
        *("--log", "sqlite:nowhere/geocast.db"),
        GEOCAST_ORIGIN="x",
        GEOCAST_DRAIN_S="long",
    )
    told = errors(outcome)
    assert outcome.status == 2
    for expected in (
        "'--stream'",
        "'--workers'",
        "entry 2 is no origin",
        "'--drain-s'",
        "GEOCAST_ORIGIN",
        "--log-replicas and",
        "--api 192.0.2.1:8766: Cannot assign",
        "keys nowhere.jwks: No such file",
        "revoked revoked.toml: not TOML",
        "categoris: is not a known key; did you mean categories?",
        "policy policy.toml: name",
        "log nowhere/geocast.db: No such file",
    ):
        assert [line for line in told if expected in line], expected
    assert table(outcome)["--stream"] == ("(not valid)", "option")


def test_check_refuses_what_serve_refuses(geocast, tmp_path, keys):
    """Both commands print the same text."""
    for arguments in ([], ["--dev", "--api", "[::]:8766"], ["--dev", "--log", "memory:", "--workers", "2"]):
        served, checked = geocast("serve", *arguments), geocast("check", *arguments)
        assert served.err in checked.err
        assert (served.status, checked.status) == (2, 2)


def test_address_in_use_is_accepted_but_not_for_two_listeners(geocast, keys):
    """The running node may use it; but `serve` can't listen twice on one address."""
    import socket

    with closing(socket.create_server(("127.0.0.1", 0))) as running:
        address = "{}:{}".format(*running.getsockname())
        assert geocast("check", "--keys", "keys.jwks", "--api", address).status == 0
        outcome = geocast("check", "--keys", "keys.jwks", "--api", address, "--metrics", address)
    assert errors(outcome) == [f"two listeners can't share an address: {address}"]


# ---- a log in SQLite -----------------------------------------------------------------------------------------


def test_log_of_a_running_node_is_examined_without_changes(geocast, tmp_path, keys, log):
    """The newest entries are in a write-ahead log next to the file."""
    with closing(opened(log)[0]) as db:
        db.execute("INSERT INTO delivery (id, sent, acked) VALUES ('a-1', 1, 1)")
        before = everything_in(tmp_path)
        outcome = geocast("check", "--keys", "keys.jwks")
        assert (outcome.status, outcome.err) == (0, "")
        assert "log: geocast.db: a log that this release can use" in outcome.out
        assert everything_in(tmp_path) == before


def someone_elses(log):
    log.unlink()
    with closing(sqlite3.connect(log)) as db:
        db.execute("CREATE TABLE diary (day TEXT)")


def of_a_later_release(log):
    with closing(sqlite3.connect(log)) as db:
        db.execute("PRAGMA user_version = 99")


def a_text(log):
    log.with_name("geocast.db.lock").unlink()
    log.write_text("Dear diary\n")


def a_pipe(log):
    log.unlink()
    os.mkfifo(log)


def a_folder(log):
    log.unlink()
    log.mkdir()


def broken(log):
    with log.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        (someone_elses, 2, "is not an alert log; it was not changed"),
        (of_a_later_release, 2, "made by a later version of geocast"),
        (a_text, 2, "is not an alert log; it was not changed"),
        (a_pipe, 2, "is not a regular file"),
        (a_folder, 2, "Is a directory"),
        (broken, 1, "is corrupt: a node would save what can be read"),
    ],
)
def test_unusable_log_file_is_reported_and_unchanged(geocast, tmp_path, keys, log, change, status, expected):
    """A node would report the file when it starts. The check repairs, moves and creates nothing."""
    change(log)
    before = everything_in(tmp_path)
    outcome = geocast("check", "--keys", "keys.jwks")
    assert outcome.status == status
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1
    assert everything_in(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_log_that_cannot_be_written_is_reported(geocast, tmp_path, keys, log, which):
    """SQLite creates files next to the log, so both the file and its folder must be writable."""
    path = log if which == "file" else tmp_path
    path.chmod(0o500)
    try:
        outcome = geocast("check", "--keys", "keys.jwks")
    finally:
        path.chmod(0o700)
    assert errors(outcome) == [f"log geocast.db: no permission to write to {path}"]


# ---- a log in Redis ------------------------------------------------------------------------------------------

redis = pytest.mark.skipif(bool(missing()), reason=missing() or "")


@redis
def test_redis_is_examined_and_nothing_is_written_to_it(geocast, tmp_path, keys):
    """The command shows its version, storage and replicas, or everything that makes it unusable."""
    with RedisServer(tmp_path) as server:
        outcome = geocast("check", "--keys", "keys.jwks", "--log", server.url)
        assert (outcome.status, outcome.err) == (0, "")
        assert "appendfsync always, 0 replicas" in outcome.out
        assert server.command("DBSIZE") == 0

        outcome = geocast("check", "--keys", "keys.jwks", "--log", server.url, "--log-replicas", "1")
        assert (outcome.status, outcome.err.count("\n")) == (1, 1)
        assert "it has 0 replicas, and --log-replicas asks for 1" in outcome.err

        server.command("SET", "{geocast}:stream", "mine")
        outcome = geocast("check", "--keys", "keys.jwks", "--log", server.url)
        assert (outcome.status, len(errors(outcome))) == (2, 1)
        assert "belongs to another program" in outcome.err
        server.command("DEL", "{geocast}:stream")

        server.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
        outcome = geocast("check", "--keys", "keys.jwks", "--log", server.url)
        assert (outcome.status, len(errors(outcome))) == (2, 1)
        assert "set maxmemory-policy noeviction" in outcome.err


def test_unreachable_redis_gives_exit_status_1(geocast, keys):
    """A node would start anyway, and wait for Redis."""
    outcome = geocast("check", "--keys", "keys.jwks", "--log", f"redis://127.0.0.1:{a_free_port()}")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert "can't be reached" in outcome.err


# ---- encryption keys of calls --------------------------------------------------------------------------------


def test_check_shows_ids_of_call_keys(geocast, keys, tmp_path):
    """Shown are which key encrypts, which decrypt, and whether others can read the file, but no key (RZ5)."""
    node = ("check", "--keys", "keys.jwks", "--call-keys", "call-keys.jwks")
    for kid in ("a", "b", "c"):
        assert geocast("keygen", "--call", "--kid", kid).status == 0
    outcome = geocast(*node, GEOCAST_LOG="memory:")
    assert (outcome.status, outcome.err) == (0, "")
    assert table(outcome)["--call-keys"] == ("call-keys.jwks", "option")
    assert "call-keys: a seals; b, c open too\n" in outcome.out
    (tmp_path / "call-keys.jwks").chmod(0o644)
    outcome = geocast(*node, GEOCAST_LOG="memory:")
    assert "call-keys: a seals; b, c open too; warning: everybody on this machine can read them\n" in outcome.out
    held = json.loads((tmp_path / "call-keys.jwks").read_text())["keys"]
    assert not any(key["k"] in outcome.out for key in held)


def test_policy_with_calls_is_refused_without_call_keys(geocast, keys, tmp_path):
    """`check` and `serve` print the same error (RZ5, K1)."""
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[categories.fire]\ntitle = "Fire"\n[calls.arrest]\ntitle = "Arrest"\nquals = ["cpr"]\n'
    )
    node = ("--keys", "keys.jwks", "--policy", "p.toml", "--log", "memory:")
    outcome = geocast("check", *node)
    assert outcome.status == 2
    [error] = errors(outcome)
    assert error.startswith("the policy has [calls], but there is no key to encrypt them with: give --call-keys FILE")
    assert errors(geocast("serve", *node)) == [error]
    assert geocast("keygen", "--call").status == 0
    assert geocast("check", *node, "--call-keys", "call-keys.jwks").status == 0


@pytest.mark.parametrize("path", ["nowhere", ".", "keys.jwks"])
def test_unusable_call_keys_are_reported(geocast, keys, path):
    """A node would refuse to start (RZ5, K1)."""
    outcome = geocast("check", "--keys", "keys.jwks", "--call-keys", path, GEOCAST_LOG="memory:")
    assert outcome.status == 2
    [error] = errors(outcome)
    assert error.startswith(f"call-keys {path}: ")


def test_check_shows_number_of_defibrillators(geocast, keys, tmp_path):
    """Usable defibrillators and unusable records are counted. A useless file prevents the start (RI4, K1)."""
    there = {"type": "Point", "coordinates": [8.83, 47.67]}
    records = [
        {"type": "Feature", "id": "a", "geometry": geometry, "properties": {"emergency": "defibrillator"}}
        for geometry in (there, None)
    ]
    (tmp_path / "aeds.json").write_text(json.dumps({"type": "FeatureCollection", "features": records}))
    node = ("check", "--keys", "keys.jwks", "--log", "memory:", "--aeds")
    outcome = geocast(*node, "aeds.json")
    assert outcome.status == 0
    assert "aeds: 1 that may be used; 1 records can't be\n" in outcome.out
    outcome = geocast(*node, "keys.jwks")
    assert outcome.status == 2
    assert errors(outcome)[0].startswith("aeds keys.jwks: ")
