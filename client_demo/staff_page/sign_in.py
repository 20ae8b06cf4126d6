"""The sign-in to a page for staff, and the checks of its requests: keys, cookies, JSON bodies.

Rule 1  Everybody signs in with a key of their own. The key is in a cookie that no script can read and that no page of
        another site can send. A request that changes something must come from the page's own origin.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

MOST_BODY = 64 << 10

Json = dict[str, Any]


class SignIn:
    """The sign-in to a page, and the check of who sends a request.

    `keys` maps names to sign-in keys; `cookie` is the beginning of the cookie's name.
    """

    def __init__(self, keys: Mapping[str, str], cookie: str) -> None:
        self._keys, self._prefix = keys, cookie

    def routes(self) -> list[BaseRoute]:
        """Return the routes for signing in and out."""
        return [
            Route("/api/sign-in", self._sign_in, methods=["POST"]),
            Route("/api/sign-out", self._sign_out, methods=["POST"]),
        ]

    def name_of(self, request: Request) -> str | None:
        """Return the name of the person who sent this request, or None if nobody is signed in."""
        return self._owner_of(_value_of(request.headers.get("cookie", ""), self._cookie(request)))

    async def _sign_in(self, request: Request) -> Response:
        sent = await read_body(request)
        if isinstance(sent, Response):
            return sent
        name = self._owner_of(sent.get("key"))
        if name is None:
            return error_response(401, "This key opens nothing here. The service prints a link for each reviewer.")
        answer = JSONResponse({"name": name})
        answer.set_cookie(self._cookie(request), self._keys[name], httponly=True, samesite="strict", max_age=86_400)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        sent = await read_body(request)
        if isinstance(sent, Response):
            return sent
        answer = JSONResponse({})
        answer.delete_cookie(self._cookie(request), httponly=True, samesite="strict")
        return answer

    def _owner_of(self, key: object) -> str | None:
        """Return the name of the person with this key, or None. A key with a lone surrogate belongs to nobody."""
        if not isinstance(key, str):
            return None
        said = key.encode("utf-8", "replace")
        found = [name for name, known in self._keys.items() if secrets.compare_digest(known.encode(), said)]
        return found[0] if found else None

    def _cookie(self, request: Request) -> str:
        """Return the name of the cookie. Browsers send a cookie to all ports of a host, so two pages need two names."""
        return f"{self._prefix}_{request.url.port}"


async def read_body(request: Request) -> Json | Response:
    """Return the JSON object in a request or, if the request must be refused, the response that refuses it (Rule 1)."""
    host = request.headers.get("host", "")
    if request.headers.get("origin") not in (f"http://{host}", f"https://{host}"):  # compared as text, not parsed
        return error_response(403, "This request does not come from the desk's own page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            return error_response(413, f"A request may have {MOST_BODY >> 10} KiB at most.")
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    return sent if isinstance(sent, dict) else error_response(400, "A JSON object is expected.")


def error_response(status: int, detail: str) -> Response:
    """Return the response to a request that is refused."""
    return JSONResponse({"detail": detail}, status)


def _value_of(cookies: str, name: str) -> str | None:
    """Return the value of a cookie, from a `Cookie` header.

    Our values have no quotes, so quotes are not parsed. Python's own parser of quoted values takes time quadratic in
    their length.
    """
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return next((value for key, _, value in pairs if key == name), None)
