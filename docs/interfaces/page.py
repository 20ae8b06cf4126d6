"""The page at /docs/stream: the AsyncAPI document of the stream, rendered as plain HTML."""

import json
import re
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

_Map = dict[str, Any]

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Stream – geocast</title>
  <link rel="icon" href="/docs/icon.svg">
  <link rel="stylesheet" href="/docs/pages.css">
</head>
<body>
  <nav aria-label="Documentation of this node">
    <img src="/docs/icon.svg" alt="" width="24" height="24"><strong>geocast</strong>
    <a href="/docs">HTTP calls</a>
    <a href="/docs/stream" aria-current="page">Stream</a>
  </nav>
  <main class="stream">
    <h1>{title} <small>{version}</small></h1>
    {about}
    <p>The machine-readable form: <a href="/v1/asyncapi.json">AsyncAPI {asyncapi}</a>.</p>
    <nav class="contents" aria-labelledby="contents"><h2 id="contents">Contents</h2><ul>{contents}</ul></nav>
    {chapters}
  </main>
</body>
</html>
"""


def page(document: _Map) -> str:
    """Return the HTML page for an AsyncAPI 3.0 document with exactly one channel."""
    [channel] = document["channels"].values()
    messages, schemas = document["components"]["messages"], document["components"]["schemas"]
    payloads = {_last(message["payload"]) for message in messages.values()}
    received = [name for name, operation in document["operations"].items() if operation["action"] == "receive"]
    replies = {name: _replies(document["operations"][name]) for name in received}
    closes = (
        (str(close["code"]), _code(close["reason"]), escape(close["reconnect"])) for close in channel["x-close-codes"]
    )
    chapters = {  # by title: the content, by the anchor of each section; "" has no anchor of its own
        "Addresses": {"": _servers(document["servers"], channel)},
        "Messages from clients": {name: _message(messages[name], schemas, replies[name]) for name in received},
        "Messages from the node": {name: _message(messages[name], schemas) for name in messages if name not in replies},
        "Parts of messages": {name: _part(name, schemas[name]) for name in schemas if name not in payloads},
        "Close codes": {"": _table(("code", "reason", "the client's reaction"), closes)},
    }
    return _PAGE.format(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        asyncapi=escape(document["asyncapi"]),
        about=_markdown(document["info"]["description"]),
        contents="".join(_entry(title, sections) for title, sections in chapters.items()),
        chapters="".join(_chapter(title, sections) for title, sections in chapters.items()),
    )


# ---- the parts of the page -------------------------------------------------------------------------------------------


def _entry(title: str, sections: dict[str, str]) -> str:
    """Return a chapter's line in the table of contents, with a link to each of its sections."""
    links = "".join(f"<li>{_link(name)}</li>" for name in sections if name)
    return f'<li><a href="#{_anchor(title)}">{title}</a>{f"<ul>{links}</ul>" if links else ""}</li>'


def _chapter(title: str, sections: dict[str, str]) -> str:
    return f'<h2 id="{_anchor(title)}">{title}</h2>{"".join(sections.values())}'


def _anchor(title: str) -> str:
    return f"chapter-{title.lower().replace(' ', '-')}"


def _servers(servers: dict[str, _Map], channel: _Map) -> str:
    rows = (
        (_code(f"{server['protocol']}://{_host(server)}{channel['address']}"), escape(server["description"]))
        for server in servers.values()
    )
    subprotocols = " or ".join(map(_code, channel["x-subprotocols"]))
    return _table(("address", "description"), rows) + f"<p>Subprotocol: {subprotocols}.</p>"


def _host(server: _Map) -> str:
    """Return a server's host name from an AsyncAPI document, with each variable in it replaced by its default."""
    return str(server["host"]).format(**{key: each["default"] for key, each in server.get("variables", {}).items()})


def _message(message: _Map, schemas: dict[str, _Map], replies: list[str] | None = None) -> str:
    answered = f" Answered by {' or '.join(_link(name) for name in replies)}." if replies else ""
    fields = _fields(schemas[_last(message["payload"])])
    shown = "".join(_example(example["payload"]) for example in message.get("examples", ()))
    return _section(message["name"], f"{_inline(message['summary'])}{answered}", fields + shown)


def _part(name: str, schema: _Map) -> str:
    return _section(name, _inline(schema.get("description", "")), _fields(schema))


def _section(name: str, about: str, content: str) -> str:
    return f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>{content}</section>'


def _example(payload: _Map) -> str:
    return f"<pre>{escape(json.dumps(payload, indent=2, ensure_ascii=False))}</pre>"


def _fields(schema: _Map) -> str:
    needed = schema.get("required", ())
    rows = (
        (_code(name) + ("" if name in needed else " <small>optional</small>"), _described(field))
        for name, field in schema.get("properties", {}).items()
    )
    return _table(("field", "description"), rows)


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f"<th scope=col>{each}</th>" for each in heads)
    body = "".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{each}</td>' for each in rest)}</tr>" for first, *rest in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# ---- descriptions of fields ------------------------------------------------------------------------------------------


def _described(schema: _Map) -> str:
    """Return one line of HTML that describes a JSON Schema: its type, and its description if it has one."""
    about = f": {_inline(schema['description'])}" if "description" in schema else ""
    return _kind(schema) + about


def _kind(schema: _Map) -> str:
    for key, describe in _KINDS.items():
        if key in schema:
            return describe(schema)
    plain: Callable[[_Map], str] = _TYPES.get(
        schema.get("type", ""), lambda found: escape(found.get("type", "anything"))
    )
    return plain(schema)


def _list(schema: _Map) -> str:
    return f"list of {_bounds(schema, 'minItems', 'maxItems')}{_kind(schema['items'])}"


def _text(schema: _Map) -> str:
    if "format" in schema:
        return "time"
    length = _bounds(schema, "minLength", "maxLength")
    pattern = f" that matches {_code(schema['pattern'])}" if "pattern" in schema else ""
    return f"text{f' of {length}characters' if length else ''}{pattern}"


def _map(schema: _Map) -> str:
    [(pattern, value)] = schema["patternProperties"].items()
    return f"map of {_bounds(schema, '', 'maxProperties')}keys that match {_code(pattern)}, each to {_kind(value)}"


def _number(schema: _Map) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    word = "above" if "exclusiveMinimum" in schema else "from"
    high = f" to {schema['maximum']:,}" if "maximum" in schema else ""
    return f"{schema['type']}{f' {word} {low:,}' if low is not None else ''}{high}"


def _bounds(schema: _Map, least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if high is None:
        return f"at least {low} " if low else ""
    return f"{low or 0} to {high} "


_KINDS: dict[str, Callable[[_Map], str]] = {
    "$ref": lambda schema: _link(_last(schema)),
    "const": lambda schema: _code(json.dumps(schema["const"])),
    "enum": lambda schema: " or ".join(_code(json.dumps(each)) for each in schema["enum"]),
    "not": lambda schema: f"text other than {_kind(schema['not'])}",
    "patternProperties": _map,
    "anyOf": lambda schema: " or ".join(map(_kind, schema["anyOf"])),
    "oneOf": lambda schema: " or ".join(map(_kind, schema["oneOf"])),
    "items": _list,
}
_TYPES: dict[str, Callable[[_Map], str]] = {"string": _text, "number": _number, "integer": _number}


# ---- conversion of text to HTML ------------------------------------------------------------------------------------


def _markdown(text: str) -> str:
    """Render text as HTML. It may use a small part of Markdown: one paragraph, then one list, with bold terms."""
    first, _, rest = text.strip().partition("\n\n- ")
    items = "".join(f"<li>{_inline(item)}</li>" for item in rest.split("\n- "))
    return f"<p>{_inline(first)}</p><ul>{items}</ul>"


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _link(name: str) -> str:
    return f'<a href="#{escape(name)}"><code>{escape(name)}</code></a>'


def _last(reference: _Map) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _replies(operation: _Map) -> list[str]:
    return [_last(message) for message in operation.get("reply", {}).get("messages", ())]
