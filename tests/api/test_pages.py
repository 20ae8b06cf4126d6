"""Tests of the api listener's public content: pages, documents, and the examples in the documents."""

import asyncio
import json
import re
from functools import cache
from pathlib import Path

import httpx
import pytest
from api.test_api import api_on
from api.test_routes_cap import CapApi
from jsonschema_rs import Draft202012Validator
from support.fakes import NOON_MS, FakeClock

from docs.interfaces.asyncapi import document as asyncapi_document
from docs.interfaces.page import page as stream_page
from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.api import examples, openapi
from geocast.api.routes_alerts import make_app
from geocast.model import close_codes
from geocast.policy import Category, Policy

FILES = ("/docs/calls.js", "/docs/pages.css", "/docs/icon.svg", "/docs/swagger-ui.css")
SHOWN = ("/docs", "/docs/stream", "/favicon.ico", "/openapi.json", "/v1/asyncapi.json", *FILES)


CLOCK = FakeClock()


@cache
def app(clock):
    """Return the application with this clock."""
    return make_app(api_on(MemoryLog(), clock))


def shown(path, clock=CLOCK, **headers):
    """Return the answer to a request without a token."""

    async def answer():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app(clock)), base_url="http://node") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(answer())


def test_root_page_redirects_to_docs_without_requiring_a_token():
    answer = shown("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


@pytest.mark.parametrize("path", SHOWN)
def test_unchanged_content_is_answered_304(path):
    """The ETag may be in a list, or marked as weak (RFC 9110, 13.1.2)."""
    first = shown(path)
    tag = first.headers["etag"]
    assert first.status_code == 200
    assert len(first.content) == int(first.headers["content-length"])
    for again in (tag, f"W/{tag}", f'"other", {tag}'):
        answer = shown(path, **{"If-None-Match": again})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert shown(path, **{"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", SHOWN)
def test_content_security_policy_allows_only_this_node(path):
    """The policy allows no other source, no inline script or style, and no frame around the page."""
    policy_of_content = shown(path).headers["content-security-policy"]
    assert policy_of_content.startswith("default-src 'none'; ")
    sources = {word for word in re.split(r"[; ]+", policy_of_content) if not word.endswith(("-src", "-uri", "-action"))}
    assert sources == {"'none'", "'self'", "data:", "frame-ancestors"}


def test_files_other_than_documented_pages_are_not_served():
    """Neither other files of the static folder nor files of the folders above are served."""
    for name in ("calls", "examples.py", "..%2Fpages.py", "favicon.png", "redoc.standalone.js"):
        assert shown(f"/docs/{name}").status_code in (401, 404)


def test_openapi_document_has_every_operation_of_a_node_that_takes_cap_messages():
    """Only the pages and the documents themselves are not in it (section 4)."""
    routes = make_app(CapApi().api).app.routes
    served = {(route.path, method.lower()) for route in routes for method in route.methods}
    complete = json.loads(Path(openapi.__file__).with_name("static").joinpath("openapi.json").read_text("utf-8"))
    described = {(path, method) for path, calls in complete["paths"].items() for method in calls}
    assert served - described == {(path, "get") for path in ("/", "/docs/{name}", *SHOWN) if path not in FILES}
    assert described <= served


# ---- examples in the documents ---------------------------------------------------------------------------------------


def document(clock=CLOCK):
    """Return the OpenAPI document."""
    return shown("/openapi.json", clock).json()


def examples_in(found):
    """Yield each example of a document with its schema."""
    for path in found["paths"].values():
        for call in path.values():
            for part in (call.get("requestBody", {}), *call["responses"].values()):
                for media in part.get("content", {}).values():
                    for example in [
                        *media.get("examples", {}).values(),
                        *([{"value": media["example"]}] if "example" in media else []),
                    ]:
                        yield media["schema"], example["value"]


def test_every_example_matches_its_schema():
    """Examples of requests, answers and problems are checked."""
    found = document()
    values = list(examples_in(found))
    assert len(values) > 40
    for schema, value in values:
        Draft202012Validator({**schema, "components": found["components"]}).validate(value)


def test_examples_change_once_per_minute():
    """Within a minute an example stays the same, so sending it twice is a repeated request (H3).

    After a minute it has a new id.
    """
    clock = FakeClock()
    first = document(clock)
    clock.advance(59)
    assert document(clock) == first
    clock.advance(1)
    later = document(clock)
    times = [set(re.findall(r"2\d{3}-\d\d-\d\dT\d\d:\d\d", str(list(examples_in(each))))) for each in (first, later)]
    assert not times[0] & times[1]


def test_examples_follow_the_current_policy():
    api = api_on(MemoryLog(), FakeClock())
    transport = httpx.ASGITransport(make_app(api))

    async def category():
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            found = (await client.get("/openapi.json")).json()["paths"]["/v1/alerts"]["post"]["requestBody"]
            return found["content"]["application/json"]["examples"]["what is needed"]["value"]["category"]

    assert asyncio.run(category()) == "burglary"
    api.policy = Policy(name="own", categories={"gale": Category(title="Gale")})
    assert asyncio.run(category()) == "gale"


def test_example_request_uses_category_that_allows_most_time_to_send_it():
    """The radius of the example is within the category's limits."""
    categories = {
        "short": Category(title="Short", max_age_s=600),
        "long": Category(title="Long", max_age_s=7_200, min_radius_m=2_000, max_radius_m=3_000),
        "hardly": Category(title="Hardly", max_age_s=9_000, min_life_s=8_000),
    }
    found = examples.examples(Policy(name="own", categories=categories), NOON_MS)
    for example in found["AlertRequest"].values():
        assert example["value"]["category"] == "long"
        area = example["value"]["area"]
        for circle in area if isinstance(area, list) else [area]:
            assert circle["radius_m"] == 2_000
    assert found["Policy"]["one category"]["value"]["categories"].keys() == {"long"}


def test_example_requests_have_status_test():
    """Only subscribers of tests receive an alert that was sent from an example (R6)."""
    found = examples.examples(policy.load(None), NOON_MS)
    bodies = [each["value"] for name in ("AlertRequest", "RevisionRequest") for each in found[name].values()]
    assert {body["status"] for body in bodies} == {"test"}


# ---- the page about the stream's messages ----------------------------------------------------------------------------


def test_stream_page_has_all_messages_fields_and_close_codes():
    """Every link within the page has a target, and the table of contents leads to every section."""
    page, found = stream_page(asyncapi_document()), asyncapi_document()["components"]
    sections = re.findall(r'<section id="(\w+)">', page)
    assert len(sections) == len(set(sections))
    assert set(sections) >= found["messages"].keys()
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(sections)
    chapters = re.findall(r'<h2 id="(chapter-[a-z-]+)">', page)
    contents = re.findall(r'href="#([\w-]+)"', re.search(r'<nav class="contents".*?</nav>', page)[0])
    assert len(chapters) == 5
    assert sorted(contents) == sorted([*chapters, *sections])
    fields = {name for schema in found["schemas"].values() for name in schema["properties"]}
    assert all(f"<code>{name}</code>" in page for name in fields)
    assert all(f"<th scope=row>{close.code}</th>" in page for close in close_codes.ALL)


def test_stream_page_escapes_html_and_renders_all_markdown():
    page = stream_page(asyncapi_document())
    assert "<script" not in page
    assert not re.search(r"\*\*|`", page)
    document = asyncapi_document()
    document["info"]["description"] = "<b>1 < 2</b>\n\n- **a** & `<b>`\n"
    assert "<p>&lt;b&gt;1 &lt; 2&lt;/b&gt;</p>" in stream_page(document)
    assert "<li><strong>a</strong> &amp; <code>&lt;b&gt;</code></li>" in stream_page(document)


def test_pages_link_to_each_other():
    """Each page marks its own link as the current one."""
    for path in ("/docs", "/docs/stream"):
        text = shown(path).text
        assert [link for link in ("/docs", "/docs/stream") if f'<a href="{link}"' in text] == ["/docs", "/docs/stream"]
        assert f'<a href="{path}" aria-current="page">' in text
