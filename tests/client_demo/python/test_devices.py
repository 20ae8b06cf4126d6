"""Tests of push registrations with `geocast push`: each request, and how exactly it gives places."""

import asyncio
import json

import h3
import httpx
import pytest

from client_demo.python.api import Refused
from client_demo.python.devices import Devices, cells_of, new_device_id
from client_demo.python.geo import Place

HOME = (32.7767, -96.797)


def cell(resolution):
    """Return the home cell at this resolution."""
    return h3.latlng_to_cell(*HOME, resolution)


def test_places_are_sent_as_coarse_cells_without_duplicates():
    """A cell that is already coarser stays as it is (rule WPR2)."""
    places = [Place.at(*HOME), Place.in_cell(cell(11)), Place.in_cell(cell(7))]
    assert cells_of(places) == [{"cell": cell(8)}, {"cell": cell(7)}]
    assert cells_of(places[1:2], 5) == [{"cell": h3.cell_to_parent(cell(11), 5)}]
    assert cells_of([Place.at(*HOME, 2_000)]) == [{"cell": cell(6)}]
    with pytest.raises(ValueError, match="at most 8 places"):
        cells_of([Place.at(*HOME)] * 9)


def test_device_id_is_valid_and_random():
    """The server accepts the id, and nobody can guess it (rule WPR1)."""
    ids = {new_device_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(16 <= len(each) <= 64 and each.replace("-", "").replace("_", "").isalnum() for each in ids)


def test_device_is_registered_and_deleted():
    """Values of None are omitted, and a refusal names the faulty field."""
    asked = []

    def answer(request):
        asked.append((request.method, request.url.path, json.loads(request.content or "null")))
        if request.method == "GET":
            return httpx.Response(200, json={"vapid": "B", "cells": [5, 9], "lease_s": 1})
        if request.method == "DELETE":
            return httpx.Response(204)
        if "places" in asked[-1][2]["subscription"]:
            errors = [{"pointer": "/subscription/endpoint", "detail": "its host is not on the list"}]
            return httpx.Response(422, json={"type": "/problems/endpoint-not-allowed", "errors": errors})
        return httpx.Response(201, json={"id": "d", "until": "2031-05-31T12:00:00.000Z", "live": 1, "secret": "s"})

    async def talk():
        async with Devices("http://h", "token", transport=httpx.MockTransport(answer)) as devices:
            assert (await devices.offer())["cells"] == [5, 9]
            answered = await devices.register("d-1", {"endpoint": "e"}, [Place.at(*HOME)], holding={}, categories=None)
            assert answered["secret"] == "s"
            await devices.register("d-1", {"endpoint": "e"}, [], holding={"a": 1}, min_severity="severe")
            await devices.forget("d-1")
            with pytest.raises(Refused, match="/subscription/endpoint: its host is not on the list"):
                await devices.register("d-1", {"places": 1}, [])

    asyncio.run(talk())
    assert asked[:4] == [
        ("GET", "/v1/push", None),
        ("PUT", "/v1/devices/d-1", {"subscription": {"endpoint": "e"}, "places": [{"cell": cell(8)}]}),
        (
            "PUT",
            "/v1/devices/d-1",
            {"subscription": {"endpoint": "e"}, "places": [], "holding": {"a": 1}, "min_severity": "severe"},
        ),
        ("DELETE", "/v1/devices/d-1", None),
    ]
