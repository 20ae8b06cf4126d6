"""Tests of `python -m client_demo call` against an in-memory API: the requests and the output."""

import functools
import json

import httpx
import pytest
from click.testing import CliRunner

from client_demo.python.dispatcher import Dispatcher
from client_demo.terminal.call import state_line
from client_demo.terminal.cli import main

PLACE = {"lat": 47.6780089, "lng": 8.8311129, "kind": "residence", "access": "Door code 4711."}
OPTIONS = [
    *("--category", "cardiac_arrest", "--headline", "Adult, not breathing.", "--lat", "47.6780089"),
    *("--lng", "8.8311129", "--kind", "residence", "--access", "Door code 4711."),
]
SEAT = {"seat": 1, "role": "cpr", "responder": "r-51c0", "state": "going", "eta_s": 240}
STATE = {
    "state": "ringing",
    "content": 4,
    "call": {"id": "c", "category": "cardiac_arrest", "headline": "Old words.", "occurred_at": "2031-05-01T12:00:00Z"},
    "ring_m": 500,
    "rung": 9,
    "seen": 6,
    "declined": 2,
    "seats": [SEAT],
}


@pytest.fixture
def api(monkeypatch):
    """Return a fake API that records requests: a GET gets the next state, or the last one again; a POST gets an id."""
    api = type("Api", (), {"asked": [], "states": [STATE]})

    def answer(request):
        api.asked.append((request.method, request.url.path, json.loads(request.content or "null")))
        if request.method == "POST":
            return httpx.Response(201, json={"id": "c"})
        return httpx.Response(200, json=api.states.pop(0) if len(api.states) > 1 else api.states[0])

    made = functools.partial(Dispatcher, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("client_demo.terminal.call.Dispatcher", made)
    monkeypatch.setattr("client_demo.terminal.call.POLL_S", 0.0)
    return api


def run(*arguments, **options):
    return CliRunner(env={"GEOCAST_DISPATCH_TOKEN": "t"}).invoke(main, ["call", *arguments], **options)


def test_open_sends_a_call_from_options(api):
    """The id and the time are generated; the response is printed without the place."""
    result = run("open", *OPTIONS, "--status", "exercise")
    assert (result.exit_code, json.loads(result.output)) == (0, {"id": "c"})
    [(method, path, body)] = api.asked
    assert (method, path, body["place"], body["status"]) == ("POST", "/v1/calls", PLACE, "exercise")
    assert set(body) == {"id", "occurred_at", "category", "headline", "status", "place"}


def test_open_uses_the_general_token_if_there_is_none_for_dispatchers(api):
    """`geocast serve --dev` prints GEOCAST_TOKEN, with all scopes."""
    result = CliRunner(env={"GEOCAST_TOKEN": "t"}).invoke(main, ["call", "open", *OPTIONS])
    assert result.exit_code == 0, result.output


def test_open_reads_a_call_from_a_file(api):
    """The place then stays off the command line; options override the file."""
    said = {"id": "cad-3", "category": "drowning", "headline": "Child.", "place": PLACE}
    result = run("open", "--file", "-", "--headline", "Child in the lake.", input=json.dumps(said))
    assert result.exit_code == 0, result.output
    [(_, _, body)] = api.asked
    assert body == {**said, "headline": "Child in the lake.", "occurred_at": body["occurred_at"]}


def test_revise_keeps_omitted_fields_except_the_place(api):
    """The place has to be given again, because the node does not return it."""
    result = run("revise", "c", "--lat", "47", "--lng", "8", "--kind", "public", "--headline", "New words.")
    assert result.exit_code == 0, result.output
    method, path, body = api.asked[-1]
    assert (method, path, body.pop("place")) == (
        "POST",
        "/v1/calls/c/revisions",
        {"lat": 47, "lng": 8, "kind": "public"},
    )
    assert body == {**STATE["call"], "headline": "New words.", "replaces": 4}
    assert run("revise", "c", "--headline", "New words.").exit_code == 2


def test_end_sends_the_reason(api):
    result = run("end", "c", "--reason", "The crew is there.")
    assert result.exit_code == 0
    assert api.asked == [("POST", "/v1/calls/c/end", {"reason": "The crew is there."})]


def test_show_follows_the_call_until_its_end(api):
    """Each change is one line."""
    api.states = [STATE, STATE, {**STATE, "seats": [{**SEAT, "state": "arrived"}]}, {**STATE, "state": "ended"}]
    result = run("show", "c", "--follow")
    assert [line.split()[0] for line in result.output.splitlines()] == ["ringing", "ringing", "ended"]
    line = "ringing  ring of 500 m: 9 rung, 6 seen, 2 declined. 1 cpr r-51c0 going in 240 s"
    assert state_line(STATE) == line
    assert json.loads(run("show", "c").output)["state"] == "ended"


def test_list_prints_open_calls(api):
    api.states = [{"calls": [{"id": "a"}]}]
    assert json.loads(run("list").output) == [{"id": "a"}]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["open", "--category", "x", "--headline", "x"], "say --lat, --lng, --kind, or a --file"),
        (["open", "--lat", "1", "--lng", "2", "--kind", "public"], "say --category, --headline"),
        (["open", "--lat", "nan"], "Invalid value for '--lat'"),
        (["open", "--file", "absent.json"], "absent.json: No such file"),
        (["open", "--file", __file__], "expected a JSON object"),
        (["open", "--kind", "secret"], "Invalid value for '--kind'"),
        (["end", "c"], "Missing option '--reason'"),
    ],
)
def test_wrong_input_prints_one_line(arguments, line):
    result = run(*arguments)
    assert result.exit_code == 2
    assert line in result.output
    assert "Traceback" not in result.output


def test_place_that_is_no_object_is_refused(tmp_path):
    """The error does not repeat the value."""
    path = tmp_path / "call.json"
    path.write_text('{"place": "Dorfstrasse 4"}')
    result = run("open", "--file", path)
    assert result.exit_code == 2
    assert "place: expected an object" in result.output
    assert "Dorfstrasse" not in result.output
