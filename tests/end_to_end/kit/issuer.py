"""An issuer of official warnings: its CAP messages, and the webhook that posts them to a node."""

import hashlib
import time
from pathlib import Path
from typing import Any

from end_to_end.kit.node import Node, repeated
from ingest.cap.issuer import CAP, RING, element

SECRET = "the secret of an issuer of warnings"
SOURCES = f"""
[sources.met]
approver = "the duty forecaster"
senders = ["*"]
secret_sha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"
"""
SPOT = {"lat": 32.75, "lng": -96.75}
BY_SECRET = {"CAP-Webhook-Auth": SECRET, "Content-Type": "application/xml"}


def options(home: Path) -> list[str]:
    """Return the options of a node that accepts CAP messages."""
    file = home / "sources.toml"
    file.write_text(SOURCES, "utf-8")
    return ["--policy", "builtin:public-warning", "--cap-sources", str(file)]


def iso(ahead_s: float) -> str:
    """Return a time in the format of CAP, `ahead_s` seconds from now."""
    return time.strftime("%Y-%m-%dT%H:%M:%S-00:00", time.gmtime(time.time() + ahead_s))


class Issuer:
    """A source of messages, each sent one second later than the previous one, and all of them in the past."""

    def __init__(self) -> None:
        self._before_s = 600

    def message(
        self,
        name: str,
        refers: tuple[str, ...] = (),
        kind: str = "",
        headline: str = "High water",
        ends_s: float = 3600,
        where: str = element("polygon", RING),
    ) -> bytes:
        """Return a message; `where` is the content of its area, shapes or only codes."""
        self._before_s -= 1
        area = element("area", "<areaDesc>The river</areaDesc>" + where)
        info = {"language": "en-US", "category": "Met", "event": "Flood", "severity": "Severe", "expires": iso(ends_s)}
        info |= {"headline": headline}
        said = "" if kind == "Cancel" else element("info", "".join(element(*each) for each in info.items()) + area)
        head = {
            "identifier": name,
            "sender": "met@example.org",
            "sent": iso(-self._before_s),
            "status": "Actual",
            "msgType": kind or ("Update" if refers else "Alert"),
            "scope": "Public",
            "references": " ".join(f"met@example.org,{each},{iso(-900)}" for each in refers) or None,
        }
        body = "".join(element(*each) for each in head.items())
        return f'<alert xmlns="{CAP}">{body}{said}</alert>'.encode()


def post(node: Node, body: bytes, **query: str) -> tuple[int, Any]:
    """Post a message, and return the status and the answer."""
    answer = repeated(lambda: node.api.post("/v1/cap", content=body, headers=BY_SECRET, params=query))
    return answer.status_code, answer.json()


def outcome(node: Node, body: bytes) -> str:
    """Post a message that must be accepted, and return its outcome."""
    status, answer = post(node, body)
    assert status in (200, 201), answer
    return answer["outcome"]
