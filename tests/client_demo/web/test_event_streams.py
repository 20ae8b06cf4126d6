"""Tests of the streams of events that the pages follow."""

import asyncio
import logging

import httpx
from starlette.routing import Route

from client_demo.web.server import application as application_of
from client_demo.web.server import event, event_stream, serving

GUARD_S = 30.0


async def test_open_stream_ends_with_its_server_without_an_error(caplog):
    """Before, the server cancelled the stream after a second, and logged a traceback."""
    closed = asyncio.Event()

    async def lines():
        try:
            yield event("all", {})
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def events(_):
        return event_stream(lines())

    async def read(url, begun):
        async with httpx.AsyncClient(trust_env=False) as http, http.stream("GET", f"{url}/events") as answer:
            async for _ in answer.aiter_lines():
                begun.set()

    with caplog.at_level(logging.DEBUG, "uvicorn"):
        async with asyncio.timeout(GUARD_S):
            begun = asyncio.Event()
            async with serving(application_of([Route("/events", events)], "")) as url:
                reading = asyncio.ensure_future(read(url, begun))
                await begun.wait()
            await reading  # to the proper end of the body
            await closed.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
