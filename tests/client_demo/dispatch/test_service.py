"""Tests of the dispatch service without a page: each record makes one call, even if requests are repeated."""

import asyncio
import contextlib
import json

import httpx
import pytest

from client_demo.dispatch.call_control import SILENT, CallControl
from client_demo.dispatch.records import Record
from client_demo.dispatch.service import DispatchService
from client_demo.python.dispatcher import Dispatcher
from client_demo.staff_page.changes import OpenPages
from client_demo.web.server import application, content_policy

HOST = "127.0.0.1:8775"
KEY = "the key of ann"
NOW = 1_800_000_000_000
SURROGATE = "\ud800"
NEAR = {"type": "circle", "lat": 1.0, "lng": 2.0, "radius_m": 210.0}
FORM = {
    "category": "cardiac_arrest",
    "status": "actual",
    "headline": "Not breathing",
    "kind": "public",
    "address": "Copper Gate 4",
    "access": "",
    "lat": 1.0001,
    "lng": 2.0001,
}


def record(key="r", **changes):
    """Return a record of a cardiac arrest."""
    told = {"nature": "CARDIAC ARREST", "recorded_at": NOW, "lat": 1.0, "lng": 2.0, "address": ""}
    return Record(key, **{**told, "category": "cardiac_arrest", "status": None, "obstacle": "", **changes})


class Api:
    """A simulated node; it carries out the next `silent` requests but answers 503."""

    def __init__(self):
        self.calls, self.bodies, self.silent, self.refuses, self.is_down = {}, [], 0, None, False

    def __call__(self, request):
        path = request.url.path
        if self.is_down:
            raise httpx.ConnectError("nobody listens")
        if request.method == "GET":
            known = [self.state(each) for each in self.calls]
            return httpx.Response(200, json={"calls": known} if path == "/v1/calls" else self.state(path.split("/")[3]))
        body = json.loads(request.content)
        self.bodies.append(body)
        if self.refuses:
            return httpx.Response(422, json=self.refuses)
        call_id = body.get("id") or path.split("/")[3]
        told = {"content": len(self.calls.get(call_id, {}).get("told", [])) + 1}
        if path.endswith("/end"):
            self.calls[call_id]["state"] = "ended"
        elif body not in self.calls.setdefault(call_id, {"state": "ringing", "told": []})["told"]:
            self.calls[call_id]["told"].append(body)
        if self.silent:
            self.silent -= 1
            return httpx.Response(503)
        return httpx.Response(201, json={"id": call_id, "revision": told["content"], "near": NEAR})

    def state(self, call_id):
        call = self.calls[call_id]
        told = {name: call["told"][-1][name] for name in ("category", "headline", "status", "occurred_at")}
        content = len(call["told"])
        return {
            "state": call["state"],
            "content": content,
            "call": {"id": call_id, "title": "Cardiac arrest", "near": NEAR, **told},
            "ring_m": 100,
            "rung": 0,
            "seen": 0,
            "declined": 0,
            "seats": [],
        }


class Page:
    """A page of the service without sockets."""

    def __init__(self, *records):
        self.api = Api()
        transport = httpx.MockTransport(self.api)
        dispatcher = Dispatcher("http://node", "t", patience_s=0, transport=transport)
        pages, self.changed = OpenPages(), asyncio.Event()
        self.control = CallControl(
            dispatcher,
            records or [record()],
            {"cardiac_arrest": {"title": "Cardiac arrest"}},
            status="actual",
            retimes=True,
            changed=self.changed.set,
            clock=lambda: NOW,
        )
        keys = {"ann": KEY, "ben": "the key of ben"}
        self.app = application(
            DispatchService(self.control, pages, keys, {"feed": "f"}, lambda: NOW).routes(), content_policy()
        )

    async def post(self, path, body, key=KEY, **headers):
        """Send one request and return the response."""
        transport = httpx.ASGITransport(self.app)
        sent = {"Origin": f"http://{HOST}", "Cookie": f"dispatch_8775={key}", **headers}
        content = body if isinstance(body, bytes) else json.dumps(body)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as http:
            return await http.post(path, content=content, headers=sent)

    async def open(self, **changes):
        """Open a call from the record."""
        return await self.post("/api/open", {"record": "r", "form": FORM | changes})


@contextlib.asynccontextmanager
async def opened():
    """Yield a page with an open call, and the call's id."""
    page = Page()
    answer = await page.open()
    assert answer.status_code == 200, answer.text
    yield page, answer.json()["call"]["id"]


def story(coroutine):
    """Run the test's coroutine."""
    asyncio.run(coroutine())


def test_record_becomes_one_call_and_second_dispatcher_gets_a_conflict():
    """The conflict names who was first (rule 1 of call_control)."""

    async def tale():
        async with opened() as (page, call_id):
            again = await page.post("/api/open", {"record": "r", "form": FORM}, "the key of ben")
            assert (again.status_code, list(page.api.calls)) == (409, [call_id])
            assert "ann" in again.json()["detail"]

    story(tale)


def test_unanswered_request_is_repeated_with_the_same_bytes(monkeypatch):
    """A lost response makes no second call (rule 2 of call_control)."""
    monkeypatch.setattr("client_demo.dispatch.call_control.AGAIN_S", 0)

    async def tale():
        page = Page()
        page.api.silent = 3
        answer = await page.open()
        assert answer.status_code == 200
        assert len(page.api.bodies) == 4
        assert page.api.bodies.count(page.api.bodies[0]) == 4

    story(tale)


def test_correction_repeats_the_whole_call_and_names_the_replaced_content():
    """A dispatcher who has seen older content gets a conflict (rule 4 of call_control)."""

    async def tale():
        async with opened() as (page, call_id):
            path = f"/api/calls/{call_id}/correct"
            answer = await page.post(path, {"content": 1, "form": FORM | {"access": "Side door"}})
            assert answer.status_code == 200, answer.text
            said = page.api.bodies[-1]
            assert (said["replaces"], said["place"]["access"]) == (1, "Side door")
            assert said["occurred_at"] == page.api.bodies[0]["occurred_at"]
            late = await page.post(path, {"content": 1, "form": FORM})
            assert late.status_code == 409

    story(tale)


def test_place_is_forgotten_after_the_call():
    """The service deletes it as the node does (rule RZ4)."""

    async def tale():
        async with opened() as (page, call_id):
            assert "Copper Gate" in repr(page.control.cases[call_id])
            answer = await page.post(f"/api/calls/{call_id}/end", {"reason": "The crew is there."})
            assert answer.json()["call"]["state"]["state"] == "ended"
            assert "Copper Gate" not in repr(page.control.cases[call_id])
            assert (await page.post(f"/api/calls/{call_id}/end", {"reason": "Again."})).status_code == 409

    story(tale)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"kind": ""}, "kind"), ({"headline": " "}, "headline"), ({"lat": None}, "place"), ({"status": "real"}, "status")],
)
def test_missing_choice_is_reported_at_its_field(changes, field):
    """No record says whether the place is a home, so nothing is preselected; the node is not asked (rule RY6)."""

    async def tale():
        page = Page()
        answer = await page.open(**changes)
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["troubles"]] == [field]
        assert not page.api.bodies

    story(tale)


def test_record_with_an_obstacle_or_of_a_drill_opens_no_actual_call():
    """The service itself checks this, not only its page (rules 2 and 3 of records)."""

    async def tale():
        page = Page(record(obstacle="no location"))
        assert (await page.open()).status_code == 422
        page = Page(record(nature="TEST", status="test"))
        assert (await page.open()).status_code == 422
        assert (await page.open(status="test")).status_code == 200

    story(tale)


def test_refusal_of_the_node_is_shown_at_its_field_and_can_be_retried():
    """The record is free again after the refusal."""

    async def tale():
        page = Page()
        error = {"type": "/problems/bad-field", "pointer": "/headline", "detail": "at most 140 characters"}
        page.api.refuses = {"type": "/problems/invalid", "title": "Invalid", "errors": [error]}
        refused = await page.open()
        assert refused.json()["troubles"] == [{"field": "headline", "text": "at most 140 characters"}]
        page.api.refuses = None
        assert (await page.open()).status_code == 200

    story(tale)


def test_page_without_a_call_says_that_the_node_does_not_answer_until_it_does(monkeypatch):
    """No call of its own is running, so only the search for open calls notices."""
    monkeypatch.setattr("client_demo.dispatch.call_control.LOOK_EVERY_S", 0)

    async def tale():
        page = Page()
        page.api.is_down = True
        work = asyncio.create_task(page.control.run())
        async with asyncio.timeout(60):
            await page.changed.wait()
            assert page.control.trouble == SILENT
            page.changed.clear()
            page.api.is_down = False
            await page.changed.wait()
            assert page.control.trouble == ""
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    story(tale)


def test_call_of_an_earlier_run_can_be_ended():
    """The service finds the call at the node without its place, so a correction has to give the place again."""

    async def tale():
        page = Page()
        page.api.calls["old"] = {"state": "ringing", "told": [{**FORM, "occurred_at": "2031-05-01T12:00:00Z"}]}
        work = asyncio.create_task(page.control.run())
        async with asyncio.timeout(60):
            await page.changed.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert page.control.cases["old"].form is None
        assert (await page.post("/api/calls/old/end", {"reason": "Over."})).status_code == 200

    story(tale)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/open", b"[]", 400),
        ("/api/open", b"{", 400),
        ("/api/open", {"record": "r"}, 400),
        ("/api/open", {"record": "r", "form": FORM | {"lat": True}}, 400),
        ("/api/open", {"record": "r", "form": FORM | {"lat": 91}}, 400),
        ("/api/open", {"record": "r", "form": FORM | {"headline": SURROGATE}}, 400),
        ("/api/open", {"record": "r", "form": FORM | {"access": "x" * 1001}}, 400),
        ("/api/open", {"record": 7, "form": FORM}, 400),
        ("/api/open", {"record": "unknown", "form": FORM}, 409),
        ("/api/calls/unknown/end", {"reason": "Over."}, 409),
        ("/api/calls/unknown/correct", {"content": "1", "form": FORM}, 400),
    ],
)
def test_malformed_request_is_refused(path, body, status):
    """The request does not reach the node."""

    async def tale():
        page = Page()
        answer = await page.post(path, body)
        assert (answer.status_code, page.api.bodies) == (status, [])
        assert answer.json()["detail"]

    story(tale)


def test_request_without_key_or_from_another_site_is_refused():
    """A decision needs a valid key and the service's own origin (rule 1 of sign_in)."""

    async def tale():
        page = Page()
        assert (await page.post("/api/open", {"record": "r", "form": FORM}, "wrong")).status_code == 401
        answer = await page.post("/api/open", {"record": "r", "form": FORM}, Origin="http://evil.example")
        assert (answer.status_code, page.api.bodies) == (403, [])

    story(tale)
