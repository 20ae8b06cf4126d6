"""A node for the tests in Home Assistant's core, whose environment lacks the packages of the kit's node."""

import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from support.ports import free_ports

ROOT = Path(__file__).resolve().parents[4]
GEOCAST = os.environ.get("GEOCAST_COMMAND", str(ROOT / ".venv" / "bin" / "geocast"))
PATIENCE = 30.0
LIFE_S = 6 * 3600


def stamp(seconds=0.0):
    """Return the present time, plus some seconds, in the format of the contract."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Node:
    """A process of `geocast serve` on loopback with a SQLite log."""

    def __init__(self, home):
        self.home, self.process = home, None
        self.stream_port, self.api_port = free_ports(2)
        self.new_key()

    def new_key(self):
        """Change the key, so that earlier tokens are refused from the next start on."""
        self._secret = secrets.token_bytes(64)
        key = {"kty": "oct", "kid": "hs", "alg": "HS256", "k": jwt.utils.base64url_encode(self._secret).decode()}
        (self.home / "keys.json").write_text(json.dumps({"keys": [key]}))

    def token(self, scope="alerts:receive", **claims):
        """Return a token with a scope."""
        claims = {"aud": "geocast", "sub": "home", "exp": int(time.time()) + LIFE_S, "scope": scope} | claims
        return jwt.encode(claims, self._secret, algorithm="HS256", headers={"kid": "hs"})

    def start(self):
        """Start the process and wait until it is ready."""
        ports = ("--stream", f"127.0.0.1:{self.stream_port}", "--api", f"127.0.0.1:{self.api_port}")
        command = (GEOCAST, "serve", *ports, "--log", f"sqlite:{self.home}/geocast.db", "--keys", "keys.json")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GEOCAST_")}
        with (self.home / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(command, cwd=self.home, env=environment, stdout=output, stderr=output)
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            assert time.monotonic() < deadline, (self.home / "output.txt").read_text()
            time.sleep(0.05)

    def _is_ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}/readyz", timeout=1).status == 200
        except OSError:
            return False

    def kill(self):
        """End the process at once."""
        self.process.kill()
        self.process.wait()

    def post(self, path, body):
        """Post a body, which must be accepted, and return the answer."""
        headers = {"Authorization": f"Bearer {self.token('alerts:publish')}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.api_port}/v1/alerts{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                assert answer.status == 201
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            raise AssertionError(refusal.read()) from None

    def publish(self, name, place, **members):
        """Publish an alert in a circle around a place."""
        approval = {"reviewer": "desk", "approved_at": stamp(-30)}
        lat, lng = place
        body = {"id": name, "category": "fire_structure", "severity": "severe", "threat": "community"}
        body |= {"headline": f"Fire: {name}", "occurred_at": stamp(-60), "approval": approval}
        body |= {"area": {"type": "circle", "lat": lat, "lng": lng, "radius_m": 800}}
        self.post("", body | members)
        return body | members

    def revise(self, body, **members):
        """Publish the second revision of an alert."""
        self.post(f"/{body['id']}/revisions", body | {"revision": 2} | members)

    def cancel(self, name, revision=2):
        """Cancel an alert."""
        approval = {"reviewer": "desk", "approved_at": stamp(-30)}
        self.post(f"/{name}/cancel", {"revision": revision, "reason": "False alarm", "approval": approval})
