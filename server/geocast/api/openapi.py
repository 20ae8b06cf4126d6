"""The OpenAPI document of a node: what it serves of the complete document, with examples that it accepts now.

`make interfaces` writes the complete document, static/openapi.json (docs/interfaces/openapi.py).
"""

import functools
import json
from collections.abc import Container
from importlib import resources
from typing import Any

from ..policy import Policy
from .examples import Named, example_id, examples


def openapi(paths: Container[str], policy: Policy, now_ms: int) -> bytes:
    """Return the OpenAPI 3.1 document of a node that serves these paths.

    Its examples are for the minute that contains `now_ms`.
    """
    document = json.loads(_complete())
    document["paths"] = {path: calls for path, calls in document["paths"].items() if path in paths}
    calls = [call for each in document["paths"].values() for call in each.values()]
    used = {tag for call in calls for tag in call["tags"]}
    document["tags"] = [tag for tag in document["tags"] if tag["name"] in used]
    shown = examples(policy, now_ms)
    for call in calls:
        _show(call, shown)
    return json.dumps(document, ensure_ascii=False).encode()


def _show(call: dict[str, Any], shown: dict[str, Named]) -> None:
    """Add examples to an operation: to its bodies, its answers and its path parameters.

    `call` is the OpenAPI description of the operation, and `shown` has the examples.
    """
    for part in (call.get("requestBody", {}), *call["responses"].values()):
        for media in part.get("content", {}).values():
            model = media["schema"].get("$ref", "").rpartition("/")[2]
            if model in shown:
                media["examples"] = shown[model]
    for parameter in call["parameters"]:
        if example := example_id(shown, parameter["name"]):
            parameter["example"] = example


@functools.cache
def _complete() -> bytes:
    return resources.files("geocast.api").joinpath("static", "openapi.json").read_bytes()
