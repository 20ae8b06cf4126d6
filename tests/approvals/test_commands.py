"""The commands for reviewers: make keys, show and sign a form, and start a node with the file of reviewers."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fakes import a_revision
from support.ports import a_free_port
from support.reviewers import AUDIENCE, PAIRS, jwks

from geocast.approvals import form
from geocast.approvals.reviewers import load_reviewers
from geocast.approvals.signatures import header_of, verifies
from geocast.auth.tokens import make_key
from geocast.config import Settings
from geocast.model.alert import Signature
from geocast.model.errors import ConfigError
from geocast.model.server_address import Address
from geocast.run.runtime_config import RuntimeConfig

FORM = form.text_of(form.form_of(a_revision(description="First\nsecond"), AUDIENCE, ""))
ASKS = 'name = "p"\naudience = "x"\n[categories]\nspill = { title = "Spill", approvals = 1 }\n'


@pytest.fixture
def told(monkeypatch):
    """Return a function that puts a text into standard input."""

    def tell(text):
        data = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    return tell


def test_keygen_adds_public_key_and_writes_private_key(geocast, tmp_path):
    """The private key is for the reviewer; the public one goes into the file of the nodes (rule K2)."""
    assert geocast("keygen", "--reviewer", "r-7").status == 0
    assert geocast("keygen", "--reviewer", "night", "--break-glass").status == 0
    found = load_reviewers(tmp_path / "reviewers.jwks")
    assert [(each.sub, each.break_glass) for each in found.values()] == [("r-7", False), ("night", True)]
    assert (tmp_path / "r-7.jwk").stat().st_mode & 0o77 == 0
    assert geocast("keygen", "--reviewer", "r-7").is_one_line_error


@pytest.mark.parametrize("arguments", [("--break-glass",), ("--reviewer", "Ana Lopez"), ("--reviewer", "../x")])
def test_keygen_with_invalid_reviewer_writes_nothing(geocast, tmp_path, arguments):
    """The command prints one line (rule K2)."""
    assert geocast("keygen", *arguments).is_one_line_error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told_as", ["the form", "with a line's end", "the whole answer"])
def test_approve_shows_and_signs_form_of_dry_run(geocast, told, told_as):
    """The signature is over the exact bytes of the dry run's form (AP, step 2)."""
    geocast("keygen", "--reviewer", "r-7")
    told({"the form": FORM, "with a line's end": FORM + "\n"}.get(told_as, json.dumps({"form": FORM, "approvals": 1})))
    outcome = geocast("approve", "--key", "r-7.jwk", "--audience", AUDIENCE, "--yes")
    assert outcome.status == 0
    [(kid, reviewer)] = load_reviewers(Path("reviewers.jwks")).items()
    signature = Signature(**json.loads(outcome.out))
    assert header_of(signature.protected).kid == kid
    assert verifies(signature, FORM, reviewer.key)
    for shown in ("Robbery, revision 1", "First", "second", AUDIENCE, "severe", "circle of 1000 m", "2026-01-31T12:30"):
        assert shown in outcome.err


def test_approve_escapes_control_characters_of_form(geocast, told):
    """A form may be hostile until a person has read it (rule C7)."""
    geocast("keygen", "--reviewer", "r-7")
    evil = replace(a_revision(), alert=replace(a_revision().alert, headline="All well\x1b[2J\u202e"))
    told(form.text_of(form.form_of(evil, AUDIENCE, "")))
    outcome = geocast("approve", "--key", "r-7.jwk", "--yes")
    assert outcome.status == 0
    assert "\x1b[2J" not in outcome.err
    assert "\u202e" not in outcome.err
    assert "\\u001b[2J" in outcome.err


RING = [[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.77]]


@pytest.mark.parametrize(
    "shape",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [RING, [[1.25, 2.5], *RING]]},
        {"type": "Polygon", "coordinates": [RING], "holes": "here"},
        {"type": "circle", "lat": 32.77, "lng": -96.81, "radius_m": 1000, "and": "more"},
        {"type": "cells", "cells": ["8926cb19c93ffff"]},
    ],
    ids=["nothing", "two rings", "a member more", "more of a circle", "of a later release"],
)
def test_approve_shows_unknown_shape_as_json(geocast, told, shape):
    """A reviewer sees everything that the signature covers (AP, step 2)."""
    geocast("keygen", "--reviewer", "r-7")
    told(form.text_of(form.form_of(a_revision(), AUDIENCE, "") | {"area": [shape]}))
    outcome = geocast("approve", "--key", "r-7.jwk", "--yes")
    assert outcome.status == 0
    assert json.dumps(shape) in outcome.err


@pytest.mark.parametrize(
    "text", ["", "x", "{}", "[]", b"\xff", '{"form": 5}', '{"form": "{}"}', " " * 70_000, "[" * 9_999]
)
def test_approve_refuses_malformed_form(geocast, told, text):
    """The command prints one line and no signature (AP, step 2)."""
    geocast("keygen", "--reviewer", "r-7")
    told(text)
    assert geocast("approve", "--key", "r-7.jwk", "--yes").is_one_line_error


@pytest.mark.parametrize(
    "arguments", [("--key", "none.jwk"), ("--key", "reviewers.jwks"), ("--key", "r-7.jwk", "--audience", "x")]
)
def test_approve_refuses_wrong_key_or_audience(geocast, told, arguments):
    """A public key can't sign, and a form for another deployment must not be signed (AP, step 2)."""
    geocast("keygen", "--reviewer", "r-7")
    told(FORM)
    outcome = geocast("approve", *arguments, "--yes")
    assert (outcome.status, outcome.out) == (2, "")


def test_approve_without_terminal_needs_yes_option(geocast, told, monkeypatch):
    """A program that signs for a person has to say so with --yes (AP, step 2)."""
    geocast("keygen", "--reviewer", "r-7")
    told(FORM)
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError(6, "No such device")))
    outcome = geocast("approve", "--key", "r-7.jwk")
    assert (outcome.status, outcome.out) == (2, "")
    assert "--yes" in outcome.err


def test_check_command_counts_reviewers_or_reports_their_absence(geocast, tmp_path):
    """`geocast check` fails if the policy asks for approvals and there are no reviewers."""
    geocast("keygen")
    (tmp_path / "r.jwks").write_bytes(jwks())
    (tmp_path / "policy.toml").write_text(ASKS)
    stream, api = (f"127.0.0.1:{a_free_port()}" for _ in range(2))
    node = ("--keys", "keys.jwks", "--policy", "policy.toml", "--log", "memory:", "--stream", stream, "--api", api)
    assert "reviewers: 6 keys of 5 reviewers" in geocast("check", *node, "--reviewers", "r.jwks").out
    outcome = geocast("check", *node)
    assert outcome.status == 2
    assert "asks for approvals, but there are no reviewers" in outcome.err
    assert geocast("serve", *node).is_one_line_error


# ---- starting a node and reloading its reviewers ------------------------------------------------------------------


class Files:
    """The files of a node whose policy asks for approvals."""

    def __init__(self, home):
        here = Address("127.0.0.1", 1)
        self.home = home
        self.private, public = make_key("tokens")
        (home / "keys").write_text(json.dumps({"keys": [public]}))
        (home / "policy").write_text(ASKS)
        (home / "reviewers").write_bytes(jwks("r-1"))
        self.settings = Settings(
            stream=here,
            api=here,
            log="memory:",
            keys=home / "keys",
            policy=home / "policy",
            reviewers=home / "reviewers",
        )


@pytest.fixture
def files(tmp_path):
    """The files of a node with one reviewer."""
    return Files(tmp_path)


def test_reload_replaces_reviewers_in_all_processes(files):
    """The first process reads the file, and hands its content to the others (rule BA2)."""
    first, second = RuntimeConfig(files.settings), RuntimeConfig(files.settings)
    (files.home / "reviewers").write_bytes(jwks("r-2", "r-3"))
    handed = []
    first.reload(handed.append)
    second.take(handed[-1])
    for found in (first, second):
        assert {each.sub for each in found.now.reviewers.values()} == {"r-2", "r-3"}


@pytest.mark.parametrize("content", [b"\xff", b"{}", b'{"keys": []}', None])
def test_reload_with_invalid_reviewers_keeps_old_ones(files, content, caplog):
    """At a start the same file would be an error (rule NC5)."""
    found = RuntimeConfig(files.settings)
    path = files.home / "reviewers"
    path.unlink() if content is None else path.write_bytes(content)
    found.reload()
    assert {each.sub for each in found.now.reviewers.values()} == {"r-1"}
    assert caplog.records[-1].getMessage().startswith("the reload failed, so nothing has changed: reviewers ")
    with pytest.raises(ConfigError, match=r"^reviewers "):
        RuntimeConfig(files.settings)


@pytest.mark.parametrize("at_start", [True, False])
def test_policy_with_approvals_and_no_reviewers_is_refused(files, at_start):
    """The node does not start, and a reload keeps the old policy (rule K1)."""
    alone = replace(files.settings, reviewers=None)
    if at_start:
        with pytest.raises(ConfigError, match="no reviewers"):
            RuntimeConfig(alone)
    else:
        (files.home / "policy").write_text(ASKS.replace("approvals = 1", "approvals = 0"))
        found = RuntimeConfig(alone)
        (files.home / "policy").write_text(ASKS)
        found.reload()
        assert not found.now.policy.asks_for_approvals


def test_start_is_refused_if_key_is_in_both_token_keys_and_reviewers(files):
    """The `kid`s of the two entries may differ (rule K1)."""
    public = {name: value for name, value in PAIRS["r-1"][1].items() if name != "sub"} | {"kid": "t", "alg": "EdDSA"}
    (files.home / "keys").write_text(json.dumps({"keys": [public]}))
    with pytest.raises(ConfigError, match="both"):
        RuntimeConfig(files.settings)
