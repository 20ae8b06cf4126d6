"""The review desk as its users see it: its process, the API of its page, and feeds written for a test."""

from __future__ import annotations

import csv
import datetime as dt
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from end_to_end.kit.alerts import Json
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import DESK_SCOPE
from end_to_end.kit.node import Node, clean_environment
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.times import now, wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports

COLUMNS = ("incident", "reported_at", "nature", "lat", "lng", "address", "unit")


def row(number: str, nature: str, spot: Point | None, age_s: float = 60, **fields: str) -> dict[str, Any]:
    """Return the dispatch record of an incident that is `age_s` seconds old."""
    at = now() - dt.timedelta(seconds=age_s)
    lat, lng = spot or ("", "")
    known = {"incident": number, "reported_at": f"{at:%Y-%m-%dT%H:%M:%SZ}", "nature": nature, "lat": lat, "lng": lng}
    return {**known, "address": "1200 Block of Elm St", "unit": "Engine 31", **fields}


def write_feed(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a feed of these records; at least one of them must have a time and a place."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


class DeskProcess(ServerProcess):
    """A process of `python -m client_demo review` for a node, with its state in `home`."""

    def __init__(self, home: Path, node: Node, feed: Path | str, *options: str) -> None:
        super().__init__(home / "desk.txt")
        self.home, self._node, self._feed, self._options = home, node, feed, options
        (self.port,) = free_ports(1)

    def __enter__(self) -> DeskProcess:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process and wait until it has printed its links."""
        self.output_file.write_bytes(b"")
        token = self._node.keys.token(scope=f"{DESK_SCOPE} alerts:audit")
        self.spawn(
            *(sys.executable, "-m", "client_demo", "review", str(self._feed)),
            *("--port", str(self.port), "--state", str(self.home / "desk.db")),
            *("--reviewer", "ann", "--reviewer", "ben"),
            *("--api", f"http://127.0.0.1:{self._node.api_port}", *self._options),
            environment=clean_environment(GEOCAST_TOKEN=token, PYTHONUNBUFFERED="1"),
            folder=Path(__file__).parents[3],
        )
        wait_until(lambda: self._has_ended() or "ben:" in self.output(), "the desk prints its links")
        assert not self._has_ended(), self.output()

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def link(self, name: str) -> str:
        """Return the address that signs a reviewer in."""
        return next(line.split()[-1] for line in self.output().splitlines() if line.strip().startswith(f"{name}:"))

    def page(self, name: str = "ann") -> Page:
        """Return a client that is signed in as a reviewer."""
        return Page(self, name)


class Page:
    """A client that sends the requests of a reviewer's page, without a browser."""

    def __init__(self, desk: DeskProcess, name: str) -> None:
        self.url = f"http://127.0.0.1:{desk.port}"
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, headers={"Origin": self.url})
        self.key = desk.link(name).partition("#key=")[2]
        assert self.post("/api/sign-in", {"key": self.key}).json() == {"name": name}

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send a POST request with a JSON body."""
        return self.http.post(path, json=body, headers=headers)

    def events(self) -> Iterator[tuple[str, Json]]:
        """Return the stream of events, beginning with `all`."""
        with self.http.stream("GET", "/api/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def state(self) -> Json:
        """Return the full state of the desk."""
        name, data = next(self.events())
        assert name == "all"
        return data

    def item(self, number: str) -> Json:
        """Return the item of the incident with this number in the feed."""
        cells = [(item, dict(item["rows"][0])) for item in self.state()["items"]]
        return next(item for item, row in cells if row["incident"] == [[number, "case number"]])

    def do(self, item: Json, what: str, **body: Any) -> httpx.Response:
        """Send a decision about an item, with the version of the item that was seen."""
        return self.post(f"/api/items/{item['id']}/{what}", {"version": item["version"], **body})

    def approve(self, item: Json, **changes: Any) -> httpx.Response:
        """Approve an item as proposed, or as it is live, with changes to its form."""
        return self.do(item, "approve", form={**(item["form"] or item["proposal"]), **changes})

    def wait_for(self, number: str, holds: Any) -> Json:
        """Wait until `holds` is true for an item, and return the item."""
        return wait_until(lambda: (item := self.item(number)) and holds(item) and item, f"{number} on the desk")
