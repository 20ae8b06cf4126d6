"""A process of `geocast serve`, and its API as a desk uses it. Nothing of the server is imported here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from end_to_end.kit.alerts import Json, alert, beacon_ground, cancel_body, circle, new_id, place
from end_to_end.kit.keys import AUDITOR_SCOPE, DESK_SCOPE, Keys, bearer
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports
from support.schemas import ApiAnswers
from support.wall_clock import WallClock

BIN = Path(sys.executable).parent
ORIGIN = "https://app.example"

SURPRISE = re.compile(r"Traceback|ERROR .* failed: \w+$", re.MULTILINE)
"""A pattern for unexpected errors in the output of a process: Python's traceback, or the process's own log line."""


def repeated(send: Callable[[], httpx.Response], first: httpx.Response | None = None) -> httpx.Response:
    """Repeat a request until the log can be reached, as the contract requires of publishers (rule H2).

    `first`: the answer to an earlier attempt. A 200 to a repetition counts as 201, because then one of the unanswered
    attempts has stored the entry.
    """
    answers = [first or send()]

    def answered() -> bool:
        if is_away(answers[-1]):
            answers.append(send())
        return not is_away(answers[-1])

    wait_until(answered, f"{answers[0].request.url.path} is answered")
    if len(answers) > 1 and answers[-1].status_code == 200:
        answers[-1].status_code = 201
    return answers[-1]


def is_away(answer: httpx.Response) -> bool:
    """Return whether a node answers that its log is unreachable, so that the outcome of the request is unknown."""
    return answer.status_code == 503 and answer.json().get("type", "").endswith("/problems/log-unavailable")


def clean_environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of geocast, extended by `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GEOCAST_")}
    return kept | settings


class Node(ServerProcess):
    """A process of `geocast serve` on loopback, with keys and a SQLite log in `home`."""

    def __init__(self, home: Path, keys: Keys | None = None, *options: str, log: str | None = None, **settings: str):
        super().__init__(home / "output.txt")
        self.keys = keys or Keys()
        self.home = home
        self.stream_port, self.api_port = free_ports(2)
        self.log_file = home / "geocast.db"
        key_file = home / "keys.json"
        key_file.write_text(json.dumps(self.keys.jwks()))
        self.options = [
            *("--stream", f"127.0.0.1:{self.stream_port}"),
            *("--api", f"127.0.0.1:{self.api_port}"),
            *("--log", log or f"sqlite:{self.log_file}"),
            *("--keys", str(key_file)),
            *options,
        ]
        self.settings = settings
        self.clock: WallClock | None = None  # None means the machine's clock
        self.launcher: list[str] = []
        self.areas: dict[str, list[Json]] = {}
        self.desk = self.keys.token(scope=DESK_SCOPE)
        self.auditor = self.keys.token(sub="operator", scope=AUDITOR_SCOPE)
        self._judged = 0

    def __enter__(self) -> Node:
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}", timeout=PATIENCE, trust_env=False)
        try:
            self.start()
            answers = ApiAnswers(self.api.get("/openapi.json").json())
        except BaseException:
            self.__exit__()
            raise
        self.api.event_hooks["response"].append(lambda response: check_answer(answers, response))
        return self

    def __exit__(self, *exc: object) -> None:
        self.api.close()
        self.kill()

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        wait_until(self._ready, "/readyz is 200")

    def launch(self) -> None:
        """Start the process."""
        environment = clean_environment(**self.settings, **(self.clock.environment if self.clock else {}))
        command = (*self.launcher, BIN / "geocast", "serve", *self.options)
        self.spawn(*command, environment=environment, folder=self.home)

    def _ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"the node ended by itself:\n{self.output()}"
        return self.api_status() == 200

    def api_status(self) -> int | None:
        """Return the status of `/readyz`, or None if the node does not answer."""
        try:
            return self.api.get("/readyz").status_code
        except httpx.TransportError:
            return None

    def own_clock(self) -> WallClock:
        """Give the node its own wall clock; call this before its start."""
        self.clock = WallClock(self.home / "wall-clock")
        return self.clock

    def behind_s(self, within_s: float) -> float:
        """Return by how many seconds, at most, the node's wall clock was behind in the last `within_s` seconds."""
        return max(0.0, *(-ahead_s for ahead_s in self.clock.lately(within_s))) if self.clock else 0.0

    def was_off(self, within_s: float) -> bool:
        """Return whether the node's wall clock was wrong in the last `within_s` seconds."""
        return self.clock is not None and any(self.clock.lately(within_s))

    # -- api

    def live(self) -> set[str]:
        """Return the ids of all live alerts, following the pages of the list."""
        found: set[str] = set()
        path = "/v1/alerts"
        while path:
            answer = self.get(path)
            found |= {each["id"] for each in answer.json()["alerts"]}
            path = answer.links.get("next", {}).get("url", "")
        return found

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """Send a GET request with the desk's token, or with `token`."""
        return self.api.get(path, headers=bearer(token or self.desk))

    def post(self, path: str, body: Any, token: str | None = None, **params: str) -> httpx.Response:
        """Post a JSON body with the desk's token or `token`, and repeat it while the log is unreachable (rule H2)."""
        return repeated(lambda: self.post_once(path, body, token, **params))

    def post_once(self, path: str, body: Any, token: str | None = None, **params: str) -> httpx.Response:
        """Post a JSON body once, for tests of the answer while the log is unreachable."""
        return self.api.post(path, json=body, params=params, headers=bearer(token or self.desk))

    def at_once(self, path: str, bodies: list[Json]) -> list[httpx.Response]:
        """Post all bodies at the same time, each on its own connection."""

        async def post_all() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=len(bodies))
            async with httpx.AsyncClient(
                base_url=self.api.base_url, timeout=PATIENCE, limits=limits, trust_env=False
            ) as api:
                posts = [api.post(path, json=body, headers=bearer(self.desk)) for body in bodies]
                return await asyncio.gather(*posts)

        firsts = asyncio.run(post_all())
        return [
            repeated(lambda body=body: self.post_once(path, body), first)  # type: ignore[misc]
            for body, first in zip(bodies, firsts, strict=True)
        ]

    def publish(self, body: Json, token: str | None = None) -> Json:
        """Publish revision 1, which must succeed, and return the answer."""
        return self._kept(self.post("/v1/alerts", body, token))

    def publish_brief(self, body: Json, seconds: float = 1.0) -> tuple[Json, Json]:
        """Publish an alert that ends after `seconds`; return its body and the answer.

        If the request arrives after that end, repeat it with twice the time.
        """
        while True:
            brief = body | {"expires_at": stamp(seconds=seconds)}
            answer = self.post("/v1/alerts", brief)
            if answer.status_code != 422 or seconds > PATIENCE:
                return brief, self._kept(answer)
            seconds *= 2

    def revise(self, body: Json, token: str | None = None) -> Json:
        """Publish the next revision, which must succeed, and return the answer."""
        return self._kept(self.post(f"/v1/alerts/{body['id']}/revisions", body, token))

    def cancel(self, alert_id: str, number: int, token: str | None = None) -> Json:
        """Cancel an alert, which must succeed, and return the answer."""
        answer = self.post(f"/v1/alerts/{alert_id}/cancel", cancel_body(number), token)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def _kept(self, answer: httpx.Response) -> Json:
        assert answer.status_code == 201, answer.text
        body = answer.json()
        self.areas[body["id"]] = body["area"]
        return body

    def state(self, alert_id: str, token: str | None = None) -> Json:
        """Return the answer to `GET /v1/alerts/{id}`, which must succeed, with the auditor's token or `token`."""
        answer = self.get(f"/v1/alerts/{alert_id}", token or self.auditor)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for_end(self, alert_id: str) -> None:
        """Wait until the node reports that an alert has expired."""
        wait_until(lambda: self.state(alert_id)["state"] == "expired", f"{alert_id} expires")

    def wait_for_counts(self, alert_id: str, **counts: int) -> None:
        """Wait until the delivery counts, which may lag by 5 s, are `counts`; `pushed` is 0 by default."""
        wanted = {"pushed": 0, **counts}
        wait_until(lambda: self.state(alert_id)["delivery"] == wanted, f"{alert_id} counts {wanted}")

    # -- stream

    def join(self, *places: Json, fmt: str = "json", **hello: Any) -> Session:
        """Return a subscriber's session after its welcome."""
        session = Session(self, fmt)
        try:
            session.hello(places, **hello)
        except BaseException:
            session.drop()
            raise
        return session

    def settle(self) -> None:
        """Publish a beacon, and wait until the node has read its log up to this beacon.

        A 201 answer does not wait for delivery. A delivered beacon shows that every earlier entry has been read. The
        next `ok` of a session comes after all messages that these entries owe to the session.
        """
        spot = beacon_ground()
        beacon = self.publish(alert(spot, id=new_id("beacon"), area=circle(spot, 100)))["id"]
        with self.join(place(spot)) as watcher:
            watcher.listen(beacon, 1)

    def assert_serving(self) -> None:
        """Require that the node still serves a session, and has logged no unexpected error since the last call."""
        assert self.process
        assert self.process.poll() is None, self.output()
        self.settle()
        self.assert_no_surprise()

    def assert_no_surprise(self) -> None:
        """Require that the node has logged no unexpected error since the last call."""
        output = self.output()
        since, self._judged = self._judged, len(output)
        surprises = SURPRISE.search(output, since)
        assert surprises is None, output[since:]


def check_answer(answers: ApiAnswers, response: httpx.Response) -> None:
    """Check an answer of the API against its own OpenAPI document."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    request = response.request
    answers.check(request.method, request.url.path, response.status_code, media_type, response.read())
