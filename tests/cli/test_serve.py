"""`geocast serve` when it refuses to start, and the help and version of the command."""

import json
import os
import re
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.command import Outcome, ended
from support.ports import a_free_port

from geocast import __version__, cli, commit
from geocast.auth.tokens import make_key
from geocast.cli import options


@pytest.fixture
def taken():
    """An address that is in use."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        yield "{}:{}".format(*other.getsockname())


@pytest.fixture
def free():
    """An address that is not in use."""
    return f"127.0.0.1:{a_free_port()}"


# ---- refusals of `geocast serve` ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no keys: give --keys FILE"),
        (["--dev", "--stream", "0.0.0.0:8765"], "--stream 0.0.0.0:8765 is not a loopback address"),
        (["--dev", "--api", "10.0.0.1:8766"], "--api 10.0.0.1:8766 is not a loopback address"),
        (["--dev", "--api", "[::]:8766"], "--api [::]:8766 is not a loopback address"),
        (["--dev", "--stream", "geocast.example:8765"], "--stream geocast.example:8765 is not a loopback address"),
        (["--stream", "8765"], "expected HOST:PORT, such as"),
        (["--api", "127.0.0.1:http"], "expected HOST:PORT, such as"),
        (["--api", "127.0.0.1:0"], "expected HOST:PORT, such as"),
        (["--api", "127.0.0.1:70000"], "expected HOST:PORT, such as"),
        (["--api", "127.0.0.1"], "expected HOST:PORT, such as"),
        (["--keys", "nowhere.jwks"], "keys nowhere.jwks: No such file or directory"),
        (["--keys", "."], "keys .: Is a directory"),
        (["--keys", "broken"], "keys broken: not a JWK set"),
        (["--workers", "0"], "0 is not in the range"),
        (["--workers", "many"], "'many' is not a valid integer"),
        (["--dev", "--workers", "2", "--log", "memory:"], "--log memory: is for one process"),
        (["--drain-s", "-1"], "-1.0 is not in the range"),
        (["--drain-s", "nan"], "expected a number of seconds from 0 to 3600"),
        (["--drain-s", "inf"], "inf is not in the range"),
        (["--drain-s", "-inf"], "-inf is not in the range"),
        (["--share", "0"], "0.0 is not in the range 0<x<=1"),
        (["--share", "1.5"], "1.5 is not in the range 0<x<=1"),
        (["--share", "nan"], "expected a number from 0 to 1"),
        (["--share", "a quarter"], "'a quarter' is not a valid float"),
        (["--keys", "private.jwk"], "keys private.jwk: is a private key, not a JWK set, such as the keys.jwks that"),
        (["--keys", "deep"], "keys deep: not a JWK set"),
        (["--max-sessions", "0"], "0 is not in the range"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--origins", "*"], "entry 1 is no origin as browsers send it, such as https://app.example"),
        (["--tls"], "No such option"),
        (["extra"], "unexpected extra argument"),
    ],
    ids=str,
)
def test_invalid_options_are_refused_in_one_line(geocast, tmp_path, arguments, expected):
    """The command exits with status 2 and prints one clear line, never a traceback (K1)."""
    (tmp_path / "broken").write_text("[]")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "private.jwk").write_text(json.dumps(make_key("a")[0]))
    outcome = geocast("serve", *arguments)
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err
    if "Invalid value" in outcome.err:
        assert f"'{arguments[0]}'" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--log", "postgres:x"], "--log: expected memory:, sqlite:PATH, or a URL of Redis"),
        (["--log", "sqlite:"], "--log: expected memory:, sqlite:PATH, or a URL of Redis"),
        (["--log", "sqlite:nowhere/geocast.db"], "log nowhere/geocast.db: No such file or directory"),
        (["--log", "sqlite::memory:"], "--log: SQLite's own :memory: can't be shared"),
        (["--log", "sqlite:."], "log .: "),
        (["--policy", "nowhere.toml"], "policy nowhere.toml: No such file or directory"),
        (["--policy", "broken"], "policy broken: not TOML"),
        (["--policy", "deep"], "policy deep: not TOML"),
    ],
    ids=str,
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_unusable_log_or_policy_is_refused_in_one_line(geocast, tmp_path, keys, arguments, expected, workers):
    """The command refuses before any process serves (K1)."""
    (tmp_path / "broken").write_text("[")
    (tmp_path / "deep").write_text("name = " + "[" * 100_000)
    ports = [argument for option in ("--api", "--stream") for argument in (option, f"127.0.0.1:{a_free_port()}")]
    outcome = geocast("serve", "--keys", "keys.jwks", *ports, "--workers", workers, *arguments)
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err


@pytest.mark.parametrize("key", [("--keys", "keys.jwks"), ("--dev",)])
@pytest.mark.parametrize("option", ["--stream", "--api"])
def test_port_in_use_is_refused_in_one_line(geocast, keys, free, taken, option, key):
    """The line names the option and the address, and --dev prints no token for a node that does not run (K1)."""
    other = {"--stream": "--api", "--api": "--stream"}[option]
    outcome = geocast("serve", *key, "--log", "memory:", option, taken, other, free)
    assert outcome.is_one_line_error, outcome.err
    assert f"{option} {taken}: Address already in use" in outcome.err


def test_two_listeners_cannot_share_a_port(geocast, keys, free):
    """The node itself would use the address twice (K1)."""
    outcome = geocast("serve", "--keys", "keys.jwks", "--log", "memory:", "--stream", free, "--api", free)
    assert outcome.is_one_line_error, outcome.err


@pytest.mark.parametrize("host", ["a..b", "x" * 64], ids=["dots", "too long"])
def test_malformed_host_is_refused_in_one_line(geocast, keys, host):
    """No traceback is printed (K1)."""
    outcome = geocast("serve", "--keys", "keys.jwks", "--log", "memory:", "--api", f"{host}:8766")
    assert outcome.is_one_line_error, outcome.err


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GEOCAST_STREAM", "8765", "expected HOST:PORT"),
        ("GEOCAST_API", "8765", "expected HOST:PORT"),
        ("GEOCAST_KEYS", "nowhere.jwks", "keys nowhere.jwks: "),
        ("GEOCAST_WORKERS", "0", "0 is not in the range"),
        ("GEOCAST_DEV", "perhaps", "'perhaps' is not a valid boolean"),
        ("GEOCAST_DRAIN_S", "x", "'x' is not a valid float"),
        ("GEOCAST_MAX_SESSIONS", "-5", "-5 is not in the range"),
        ("GEOCAST_LOG_LEVEL", "loud", "'loud' is not one of"),
    ],
)
def test_option_may_come_from_the_environment(geocast, name, value, expected):
    """Each option has an environment variable (section 7)."""
    outcome = geocast("serve", **{name: value})
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err


def test_command_line_option_overrides_environment_variable(geocast):
    """If both are given, the option counts (section 7)."""
    outcome = geocast("serve", "--keys", "here.jwks", GEOCAST_KEYS="there.jwks")
    assert "keys here.jwks: " in outcome.err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GEOCAST_ORIGIN", "GEOCAST_ORIGIN in the environment is no setting; did you mean GEOCAST_ORIGINS?"),
        ("GEOCAST_WORKER_COUNT", "did you mean GEOCAST_WORKERS?"),
        ("GEOCAST_QQQQ", "GEOCAST_QQQQ in the environment is no setting\n"),
        ("GEOCAST_PORTS", "GEOCAST_PORTS in the environment is no setting"),
    ],
)
def test_unknown_environment_variable_is_refused_with_a_suggested_name(geocast, name, expected):
    """A misspelt variable would have no effect. Its value is not repeated (K1)."""
    outcome = geocast("serve", "--dev", **{name: "hidden"})
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err
    assert "hidden" not in outcome.err


def test_environment_variables_of_other_programs_are_ignored(geocast):
    """The project's other programs have variables, and Kubernetes sets some for a service called geocast."""
    links = ("SERVICE_HOST", "SERVICE_PORT_API", "PORT", "PORT_8765_TCP", "PORT_8765_TCP_ADDR", "API_SERVICE_HOST")
    serves = {option.envvar for option in cli.cli.commands["serve"].params}
    others = {
        *options.ELSEWHERE,
        *(options.VARIABLES - serves),
        *(f"GEOCAST_{link}" for link in links),
        "GEOCASTLE",
        "MY_GEOCAST_THING",
    }
    outcome = geocast("serve", **dict.fromkeys(others, "x"))
    assert "no keys: " in outcome.err


def test_every_environment_variable_named_in_the_project_is_known():
    """`cli.options` has to list each new variable of any program that is no command of the server."""
    root = Path(__file__).parents[2]
    files = [root / "Makefile", *(file for top in ("server", "client_demo", "bench") for file in sources(root / top))]
    used = {name for file in files for name in re.findall(r"\bGEOCAST_[A-Z][A-Z_]*\b", file.read_text("utf-8"))}
    used |= {
        name
        for file in sources(root / "tests")
        for name in re.findall(r"environ\S*?\W(GEOCAST_[A-Z_]+)", file.read_text("utf-8"))
    }
    assert used | options.VARIABLES == options.VARIABLES | options.ELSEWHERE
    assert not options.VARIABLES & options.ELSEWHERE


def sources(top):
    """Return the programs in a folder."""
    found = (path for kind in ("*.py", "*.sh", "*.mjs", "*.js") for path in top.rglob(kind))
    return [path for path in found if "node_modules" not in path.parts]


# ---- help, version and hints -------------------------------------------------------------------------------------


def test_node_and_push_have_different_environment_variables_for_workers(monkeypatch):
    """A node and `geocast push` may share an environment.

    With Redis, push has one worker (docs/reference/settings.md).
    """
    command = cli.cli.commands["push"]
    given = ["--push-keys", "p", "--vapid", "v", "--contact", "mailto:a@b.example", "--keys", "k"]
    monkeypatch.setenv("GEOCAST_WORKERS", "8")
    assert command.make_context("push", list(given)).params["workers"] == 1
    monkeypatch.setenv("GEOCAST_PUSH_WORKERS", "4")
    assert command.make_context("push", list(given)).params["workers"] == 4


def test_help_lists_every_option_with_its_variable_and_default(geocast):
    """Operators need no other list (section 7)."""
    outcome = geocast("serve", "--help")
    assert outcome.status == 0
    said = " ".join(outcome.out.split())
    for option in cli.cli.commands["serve"].params:
        assert option.opts[0] in said
        assert f"env var: {option.envvar}" in said
        if isinstance(option.default, str) and option.default:
            assert option.default in said


def test_version_is_that_of_the_package(geocast):
    """`geocast --version` prints the version (section 7)."""
    outcome = geocast("--version")
    shown = f" (commit {commit()})" if commit() else ""
    assert (outcome.status, outcome.out) == (0, f"geocast, version {__version__}{shown}\n")


@pytest.mark.parametrize("arguments", [["shrug"], ["--shrug"]])
def test_unknown_command_is_refused_in_one_line(geocast, arguments):
    """No traceback is printed (K1)."""
    assert geocast(*arguments).is_one_line_error


def test_geocast_without_arguments_prints_help(geocast):
    """The help has a line for each command."""
    outcome = geocast()
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    for name in cli.cli.commands:
        assert any(line.startswith(f"  {name} ") for line in lines)
    assert outcome.out == geocast("--help").out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--port", "8"], r"No such option '--port'\. Try 'geocast serve --help' for help\.$"),
        (["serve", "--polcy", "2"], r"Did you mean '--policy'\? Try 'geocast serve --help' for help\.$"),
        (["server"], r"Did you mean 'serve'\? Try 'geocast --help' for help\.$"),
        (["token", "--sub", "x"], r"Try 'geocast token --help' for help\.$"),
    ],
    ids=str,
)
def test_error_for_invalid_option_mentions_the_help(geocast, arguments, expected):
    """The line also suggests the name that was probably meant (K1)."""
    outcome = geocast(*arguments)
    assert outcome.is_one_line_error, outcome.err
    assert re.search(expected, outcome.err)


@pytest.mark.parametrize("arguments", [["token", "--check"], ["serve", "--log"], ["check", "--dev"]], ids=str)
def test_unexpected_arguments_are_not_repeated_in_the_error(geocast, arguments):
    """An argument may be a token, or a malformed URL with a password (K1)."""
    outcome = geocast(*arguments, "memory:", "redis://:se)cret@localhost", "se(cret")
    assert outcome.is_one_line_error, outcome.err
    assert "cret" not in outcome.err
    assert f"Got unexpected extra arguments. Try 'geocast {arguments[0]} --help' for help." in outcome.err


HEAVY = {
    *("asyncio", "cryptography", "h3", "jwt", "msgpack", "numpy", "prometheus_client", "pydantic"),
    *("redis", "sqlite3", "ssl", "starlette", "uvicorn", "uvloop", "websockets"),
}


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--version"], {}),
        (["--help"], {}),
        (["serve", "--help"], {}),
        (["serve", "--port", "8"], {}),
        ([], {"_GEOCAST_COMPLETE": "bash_complete", "COMP_WORDS": "geocast serve --lo", "COMP_CWORD": "2"}),
        ([], {"_GEOCAST_COMPLETE": "zsh_source"}),
    ],
    ids=str,
)
def test_help_and_completion_do_not_import_heavy_modules(arguments, environment):
    """So the shell completes a command at once. The modules of a node are imported only when a node is run."""
    program = "import atexit, sys\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    program += f"sys.argv = {['geocast', *arguments]}\nfrom geocast.cli import main\nmain()"
    done = ended(sys.executable, "-c", program, env=os.environ | environment)
    assert done.stdout or done.returncode == 2
    assert not HEAVY & set(done.stderr.splitlines()[-1].split())


def test_python_m_geocast_runs_the_command():
    """It runs in a separate process, and prints only the one error line on standard error (K1)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GEOCAST_")}
    done = ended(*(sys.executable, "-X", "dev", "-W", "error", "-m", "geocast", "serve"), env=environment)
    assert Outcome(done.returncode, done.stdout, done.stderr).is_one_line_error, done.stderr
