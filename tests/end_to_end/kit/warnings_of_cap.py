"""Official warnings as their issuers send them: CAP 1.2 messages of the current minute."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from end_to_end.kit.earth import Point
from end_to_end.kit.node import repeated
from end_to_end.kit.times import stamp

if TYPE_CHECKING:
    import httpx
    from end_to_end.kit.node import Node

SECRET = "what only the weather service knows"
SENDER = "met@example.org"
POLICY = """
name = "warnings"
[categories.flood]
title = "Flood"
polygons = true
cap = ["event:flood", "category:Met"]
[categories.burglary]
title = "Burglary"
polygons = true
simplify_m = 5000
"""


def options(home: Path) -> tuple[str, ...]:
    """Return the options of a node that accepts warnings from one service."""
    (home / "policy.toml").write_text(POLICY)
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    source = f'[sources.met]\napprover = "the duty forecaster"\nsenders = ["{SENDER}"]\nsecret_sha256 = "{digest}"\n'
    (home / "sources.toml").write_text(source)
    return "--policy", str(home / "policy.toml"), "--cap-sources", str(home / "sources.toml")


def send(node: Node, message: str) -> httpx.Response:
    """Send a message as the service's webhook does."""
    headers = {"CAP-Webhook-Auth": SECRET, "Content-Type": "application/xml"}
    return repeated(lambda: node.api.post("/v1/cap", content=message.encode(), headers=headers))


def warning(identifier: str, spot: Point, *languages: str, **fields: Any) -> str:
    """Return a warning of a flood within 2 km of a point, with a text in each of these languages."""
    return _message(identifier, "Alert", "".join(_info(spot, language, fields) for language in languages))


def cancel(identifier: str, of: str, headline: str = "") -> str:
    """Return the message that cancels the message `of`."""
    info = f"<info><event>Flood</event><headline>{headline}</headline></info>" if headline else ""
    return _message(identifier, "Cancel", info, f"<references>{SENDER},{of},{_time(-60)}</references>")


def _message(identifier: str, kind: str, infos: str, references: str = "") -> str:
    head = f"<identifier>{identifier}</identifier><sender>{SENDER}</sender><sent>{_time(-5)}</sent>"
    rest = f"<status>Actual</status><msgType>{kind}</msgType><scope>Public</scope>{references}{infos}"
    return f'<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">{head}{rest}</alert>'


def _info(spot: Point, language: str, fields: dict[str, Any]) -> str:
    known = {
        "language": language,
        "category": "Met",
        "event": f"Flood ({language})",
        "urgency": "Expected",
        "severity": "Severe",
        "certainty": "Likely",
        "onset": _time(600),
        "expires": _time(1800),
        "headline": f"The river rises ({language})",
        "description": f"More than ever ({language}).",
        "instruction": f"Go up the hill ({language}).",
        "web": "https://weather.example/flood?x=1",
    }
    body = "".join(f"<{name}>{text}</{name}>" for name, text in (known | fields).items())
    area = f"<areaDesc>Along the river ({language})</areaDesc><circle>{spot[0]},{spot[1]} 2</circle>"
    return f"<info>{body}<area>{area}</area></info>"


def _time(seconds: float) -> str:
    """Return a time in the format of CAP."""
    return stamp(seconds=seconds)[:19] + "+00:00"
