"""Tests that each page of client_demo has an icon, also for browsers that ask for `/favicon.ico`."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from client_demo.demo.live_map import FILES as MAP
from client_demo.demo.responder_page import PAGE as RESPONDER
from client_demo.desk.service import PAGE as DESK
from client_demo.dispatch.service import PAGE as DISPATCH
from client_demo.web.server import application, content_policy, files

EXAMPLE = Path(__file__).parents[3] / "client_demo" / "web" / "geocast" / "example.html"


@pytest.mark.parametrize("page", [MAP, RESPONDER, DESK, DISPATCH], ids=["map", "responder", "desk", "dispatch"])
def test_icon_of_a_page_is_served(page):
    """The page names its icon, which its policy allows."""
    [icon] = re.findall(r'<link rel="icon" href="([^"]+)">', page["/"].read_text("utf-8"))
    app = application(files(page), content_policy())

    async def ask(path):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            return await http.get(path)

    for path in (icon, "/favicon.ico"):
        answer = asyncio.run(ask(path))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert "img-src 'self'" in answer.headers["content-security-policy"]


def test_example_page_makes_browsers_ask_for_no_icon():
    """The file server of the first alert has none."""
    assert '<link rel="icon" href="data:,">' in EXAMPLE.read_text("utf-8")
