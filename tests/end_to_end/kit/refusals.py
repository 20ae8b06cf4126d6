"""Invalid requests and their documented answers, which never repeat a refused value.

Every refused value contains `CANARY`, which must not appear in the answer. A 422 names each invalid field or broken
rule by a problem type and a JSON Pointer, in the contract's order.
"""

import copy
import json
from typing import Any, NamedTuple

import httpx
import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.keys import bearer
from end_to_end.kit.node import Node

CANARY = "7391"
TEXT = f"tango{CANARY}uniform"
GONE = object()
KIB64 = 64 * 1024


class Row(NamedTuple):
    """An invalid field: its pointer and value, and the problem type and pointer of the answer."""

    pointer: str
    value: Any
    slug: str = "invalid-value"
    told_at: str | None = None

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(self.slug, self.pointer if self.told_at is None else self.told_at)]


def put(body: Json, pointer: str, value: Any) -> Json:
    """Return a copy of a body with the value at a JSON Pointer replaced, or removed if `value` is `GONE`."""
    changed = copy.deepcopy(body)
    *parents, name = (int(part) if part.isdigit() else part for part in pointer.split("/")[1:])
    target: Any = changed
    for parent in parents:
        target = target[parent]
    if value is GONE:
        del target[name]
    else:
        target[name] = value
    return changed


def check(answer: httpx.Response, status: int, errors: list[tuple[str, str]]) -> None:
    """Require a problem with this status and exactly these errors, in order, that repeats no refused value."""
    problem = problem_of(answer, status)
    found = [(error["type"].removeprefix("/problems/"), error["pointer"]) for error in problem["errors"]]
    assert found == errors
    assert problem["type"] == f"/problems/{errors[0][0]}"
    assert all(error["detail"] for error in problem["errors"])


def problem_of(answer: httpx.Response, status: int) -> Json:
    """Require a well-formed RFC 9457 problem with this status, and return it."""
    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text, "no error repeats a refused value"
    assert answer.headers["content-type"].split(";")[0] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("/problems/")
    assert problem["title"]
    assert problem["detail"]
    return problem


def assert_problem(answer: httpx.Response, status: int, slug: str) -> Json:
    """Require a problem of this status and type, and return it."""
    problem = problem_of(answer, status)
    assert problem["type"] == f"/problems/{slug}"
    return problem


def named(rows: list[Row]) -> list[Any]:
    """Return the rows as test parameters; a number in their ids keeps the ids distinct."""
    return [pytest.param(row, id=f"{i}-{row.slug}-{row.pointer!a}") for i, row in enumerate(rows)]


def send(node: Node, content: bytes, path: str = "/v1/alerts", **headers: str) -> httpx.Response:
    """Post bytes unchanged."""
    headers = {"Content-Type": "application/json"} | bearer(node.desk) | headers
    return node.api.post(path, content=content, headers=headers)


def text_of(node_body: Json, old: str, new: str) -> str:
    """Return the body's JSON with one substring replaced."""
    text = json.dumps(node_body)
    assert old in text
    return text.replace(old, new, 1)
