"""A node that sends each odd message of the table, each followed by a good alert, and is a good node afterwards.

It uses no package that Home Assistant's environment lacks.
"""

import contextlib
import json
import subprocess
import threading
from datetime import UTC, datetime, timedelta

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from client_demo.conformance.odd_messages import frames
from client_demo.python.holdings import ID, MAX_REVISION

NO_UTF_8 = b'{"type":"\xff\xfe"}'


def stamp(seconds=0.0):
    """Return the present time, plus some seconds, in the format of the contract."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class OddNode:
    """A server of the stream in JSON. The first connection is sent all that is odd; `hellos` has each `hello`.

    When a test sets `has_heard`, it is sent a text that is no UTF-8, after which a client must end the connection, and
    come back.
    """

    def __init__(self):
        self.hellos, self._changed, self.has_heard = [], threading.Condition(), threading.Event()
        self._server = serve(self._talk, "127.0.0.1", 0, subprotocols=["geocast.v1.json"], compression=None)
        self.port = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/v1/stream"
        self._thread = threading.Thread(target=self._server.serve_forever)
        good = self._good("odd", {"lat": 0.0, "lng": 0.0})
        call = {**good, "answer_s": 30, "near": good["area"][0]}
        self.odd = frames(good, call, is_text=True)
        self.good = {f"good-{number}" for number in range(len(self.odd))}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()

    def heard(self, count):
        """Wait for so many connections in all, and return the good ids that the last `hello` listed.

        A client may keep an odd alert that a node would accept in a `hello`.
        """
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.hellos) >= count, 60), f"{len(self.hellos)} connections"
        return self.hellos[count - 1].get("holding", {}).keys() - {"odd"}

    def _good(self, name, place):
        alert = {"id": name, "revision": 1, "category": "robbery", "title": "Robbery", "headline": f"Fire: {name}"}
        alert |= {"severity": "severe", "status": "actual", "source": "kit", "occurred_at": stamp(-60)}
        circle = {"type": "circle", "lat": place["lat"], "lng": place["lng"], "radius_m": 1000.0}
        return alert | {"issued_at": stamp(-1), "expires_at": stamp(3600), "area": [circle]}

    def _talk(self, socket):
        with contextlib.suppress(ConnectionClosed):
            hello = json.loads(socket.recv())
            with self._changed:
                self.hellos.append(hello)
                self._changed.notify_all()
            number = len(self.hellos)
            if not all(map(is_listable, hello.get("holding", {}).items())):
                socket.close(4400)
                return
            for frame in self._frames(number, hello["places"][0]):
                socket.send(frame, text=True)
            for frame in socket:
                if (said := json.loads(frame))["type"] == "ping":
                    socket.send(json.dumps({"type": "pong", "now": stamp()}))
                elif "ref" in said:
                    socket.send(json.dumps({"type": "ok", "ref": said["ref"], "live": 0}))

    def _frames(self, number, place):
        odd = self.odd if number == 1 else {}
        yield from odd.values()  # before the welcome, too
        retry = {"min_ms": 0, "max_ms": 100}
        yield json.dumps({"type": "welcome", "now": stamp(), "live": 0, "heartbeat_s": 25, "retry": retry})
        for name, frame in zip(sorted(self.good), odd.values(), strict=False):
            yield frame
            yield json.dumps({"type": "alert", "alert": self._good(name, place)})
        yield json.dumps({"type": "alert", "alert": self._good(f"after-{number}", place)})
        if number == 1 and self.has_heard.wait(60):
            yield NO_UTF_8


def is_listable(item):
    """Return whether a node accepts this id and this revision in a `holding`."""
    key, revision = item
    return bool(ID.fullmatch(key)) and type(revision) is int and 1 <= revision <= MAX_REVISION


class Program:
    """A process that prints what it hears."""

    def __init__(self, *command):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen(command, **pipes, text=True)
        self.said = ""
        self._guard = threading.Timer(60.0, self._process.kill)
        self._guard.start()

    def says(self, *words):
        """Wait until all words were printed."""
        missing = set(words)
        while missing and (line := self._process.stdout.readline()):
            self.said += line
            missing = {word for word in missing if word not in line}
        assert not missing, f"{sorted(missing)} were not heard; it said {self.said}"

    def end(self):
        """Ask the process to end, and wait for it."""
        self._process.terminate()
        self.said += self._process.stdout.read()
        self._process.wait()
        self._process.stdout.close()
        self._guard.cancel()
