"""Tests of malformed requests: rubbish in any header or field that the service reads gets one clear refusal."""

import asyncio
import contextlib
import itertools
import json

import httpx
import pytest
from support.cpu import cpu_limit

from client_demo.desk.alert_control import AlertControl
from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.desk.queue import Queue
from client_demo.desk.service import DeskService
from client_demo.desk.source import as_recorded
from client_demo.desk.store import Store
from client_demo.desk.triage import Policy
from client_demo.python.publisher import Publisher
from client_demo.staff_page.changes import OpenPages
from client_demo.web.server import application, content_policy

HOST = "127.0.0.1:8770"
POLICY = Policy.from_map({"name": "for these tests", "categories": {"fire_structure": {"title": "Fire"}}, "never": {}})
NOW = 1_800_000_000_000
KEY = "the key of ann"
SURROGATE = "\ud800"
REFUSED = (400, 401, 403, 404, 409, 413, 422)


class Page:
    """A page of the service without sockets: errors of the service are raised in the test."""

    def __init__(self, store: Store) -> None:
        self.cookie = f"desk_8770={KEY}"
        self.queue = Queue(POLICY, "exercise")
        (self.item,) = (self.queue.take(seen) for seen in as_recorded(read_records("f", feed_text(SAMPLE)))[:1])
        publisher = Publisher("http://node", "t", transport=httpx.MockTransport(lambda _: httpx.Response(422, json={})))
        pages = OpenPages()
        control = AlertControl(publisher, self.queue, store, pages.changed, lambda: NOW)
        service = DeskService(control, pages, {"ann": KEY}, {"status": "exercise"}, lambda: NOW)
        self.app = application(service.routes(), content_policy())

    def send(self, method, path, *, signed=True, **more):
        """Send one request and return the response."""

        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as http:
                headers = {"Origin": f"http://{HOST}", **more.pop("headers", {})}
                cookies = {"Cookie": self.cookie} if signed else {}
                return await http.request(method, path, headers={**cookies, **headers}, **more)

        return asyncio.run(ask())

    def decide(self, what, body):
        """Decide about the only item and return the response."""
        return self.send("POST", f"/api/items/{self.item.id}/{what}", content=json.dumps(body))


@pytest.fixture
def page(tmp_path):
    """Return a page that is signed in as ann."""
    with contextlib.closing(Store(tmp_path / "desk.db")) as store:
        yield Page(store)


def test_page_fixture_is_signed_in(page):
    """Without this, the other tests would prove nothing."""
    assert page.decide("dismiss", {"version": 1}).status_code == 200
    assert page.send("POST", "/api/sign-in", signed=False, content=json.dumps({"key": KEY})).json() == {"name": "ann"}


def test_later_view_of_an_item_has_a_higher_number(page):
    """A page that gets an event before the older answer to its own request keeps what the event said."""
    first, second = (page.decide(what, {"version": page.item.version}).json()["item"] for what in ("dismiss", "reopen"))
    assert first["view"] < second["view"]


ODD_ORIGINS = [
    "http://[",
    "http://[::1",
    "http://]",
    "http://127.0.0.1:99999",
    f"http://x@{HOST}",
    f"http://{HOST}/",
    f"http://{HOST}:1",
    f"//{HOST}",
    f"ftp://{HOST}",
    f" http://{HOST}x",
    HOST,
    "null",
    "",
    "http://" + "[" * 5000,
    b"http://\xff\xfe",
]


@pytest.mark.parametrize("origin", ODD_ORIGINS, ids=lambda origin: repr(origin)[:30])
@pytest.mark.parametrize("path", ["/api/sign-in", "/api/sign-out", "/api/items/x/dismiss"])
def test_odd_origin_is_refused(page, path, origin):
    """Only the desk's own address, compared exactly, is accepted."""
    assert page.send("POST", path, headers={"Origin": origin}, content=b"{}").status_code in (403, 404)


ODD_HOSTS = ["127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:80:90", "127.0.0.1:", "localhost:²", "[::1", "[", "", b"\xff"]


@pytest.mark.parametrize("host", ODD_HOSTS, ids=repr)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/api/events"), ("POST", "/api/sign-out")])
def test_odd_host_is_refused_or_not_signed_in(page, method, path, host):
    """The name of the cookie contains the port of `Host`."""
    host = host if isinstance(host, bytes) else host.encode()
    origin = b"http://" + host
    signed = path != "/api/events"  # the stream of events would never end for a signed-in page
    answer = page.send(method, path, signed=signed, headers={"Host": host, "Origin": origin}, content=b"{}")
    assert answer.status_code in ((200, 400) if path == "/" else (*REFUSED, 200))


ODD_KEYS = [SURROGATE, "\0", "ü" * 1000, "", None, 7, True, [], {}, [KEY], "x" * 60_000]


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: repr(key)[:20])
def test_odd_key_does_not_sign_in(page, key):
    """JSON can contain an unpaired surrogate."""
    answer = page.send("POST", "/api/sign-in", signed=False, content=json.dumps({"key": key}))
    assert answer.status_code in (400, 401)
    assert answer.json()["detail"]


ODD_COOKIES = [
    b"desk_8770=\xff",
    b'desk_8770="\\ud800"',
    b'desk_8770="\\777\\000"',
    b"=;=;;",
    b"desk_8770",
    b'desk_8770="' + b"\\a" * 60_000 + b'"',
]


@pytest.mark.parametrize("cookie", ODD_COOKIES, ids=lambda cookie: repr(cookie)[:20])
def test_odd_cookie_does_not_sign_in_and_takes_little_time(page, cookie):
    """Python's own cookie parser takes quadratic time (CVE-2024-7592)."""
    with cpu_limit(2.0):
        assert page.send("GET", "/api/events", signed=False, headers={"Cookie": cookie}).status_code == 401


def test_cookie_is_found_among_others(page):
    """Cookies ignore ports, so other pages of this host send theirs too."""
    page.cookie = f"desk_8771=x; other; desk_8770={KEY}; last=1"
    assert page.decide("dismiss", {"version": 1}).status_code == 200


ODD = [
    None,
    True,
    False,
    -1,
    0,
    1.5,
    1e400,
    float("nan"),
    10**400,
    "1",
    "",
    SURROGATE,
    "\0",
    [],
    {},
    [1],
    {"a": 1},
    "x" * 9000,
]


@pytest.mark.parametrize("what", ["dismiss", "reopen", "cancel", "approve"])
@pytest.mark.parametrize("version", [odd for odd in ODD if odd != 1 or odd is True], ids=lambda odd: repr(odd)[:20])
def test_odd_version_decides_nothing(page, what, version):
    """True is refused although it equals 1 in Python."""
    form = page.queue.proposal(page.item)
    answer = page.decide(what, {"version": version, "reason": "x", "form": form})
    assert answer.status_code in REFUSED
    assert page.item.history == []


@pytest.mark.parametrize("what", ["approve", "preview"])
@pytest.mark.parametrize("field", ["headline", "description", "category", "severity", "lat", "lng", "radius_m", "ring"])
@pytest.mark.parametrize("value", ODD, ids=lambda odd: repr(odd)[:20])
def test_odd_form_field_is_refused_or_checked(page, what, field, value):
    """Texts and finite numbers are checked by the policy; anything else is refused with the field's name."""
    page.item.sighting = as_recorded(read_records("f", feed_text(SAMPLE)))[0]
    form = {**page.queue.proposal(page.item), field: value}
    answer = page.decide(what, {"version": 1, "form": form})
    assert answer.status_code in (200, *REFUSED)
    if answer.status_code == 400:
        assert field in answer.json()["detail"]
        assert str(value)[:50] not in answer.json()["detail"] or not str(value)


@pytest.mark.parametrize(
    "body", ["", "null", "7", '"x"', "[]", "{", '{"a":' * 5000, "\ufeff{}", '{"version":' + "9" * 5000 + "}"]
)
def test_odd_body_is_refused(page, body):
    answer = page.send("POST", f"/api/items/{page.item.id}/dismiss", content=body.encode())
    assert answer.status_code == 400
    assert page.item.history == []


@pytest.mark.parametrize("odd", ["%00", "%ff", "%ED%A0%80", "..%2f..", "x" * 5000, "%0d%0aX: y"])
def test_odd_path_is_not_found(page, odd):
    for method, path in itertools.product(("GET", "POST"), (f"/api/items/{odd}/dismiss", f"/{odd}", f"/npm/{odd}")):
        assert page.send(method, path, content=b'{"version": 1}').status_code in (404, 405)


ODD_FILE_HEADERS = [
    ("Range", value)
    for value in ("bytes=", "bytes=x-y", "bytes=9-1", "x", "bytes=0-" + "9" * 5000, "bytes=" + "0-1," * 500)
] + [("If-None-Match", b"\xff"), ("If-Range", "x"), ("If-None-Match", '"' * 5000)]


@pytest.mark.parametrize(("name", "value"), ODD_FILE_HEADERS, ids=lambda value: repr(value)[:20])
def test_odd_file_header_is_answered(page, name, value):
    """The response is the file, a part of it, or a refusal."""
    headers = {name: value} if name != "If-Range" else {name: value, "Range": "bytes=0-1"}
    assert page.send("GET", "/", headers=headers).status_code in (200, 206, 304, 400, 416)
