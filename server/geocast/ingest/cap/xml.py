"""A small and safe XML parser for CAP messages, which makes a tree of elements (rules CP2, CP3 and HD11).

Nothing is fetched, and no entities are expanded. `checked` looks at the markup before the parser does, and refuses
document type declarations and whatever would take much memory or time: long names and namespaces, deep nesting, and too
many elements or attributes. Example: the parser copies the namespace of an element for each element in it, so a
namespace of 1 MB becomes gigabytes. Attributes are dropped, because CAP has none, and so are comments and processing
instructions.
"""

import codecs
import re
from collections.abc import Callable
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder

from lxml import etree

from ...model import problems
from ...model.problems import Problem

# By the tag of the element `alert`, the versions of CAP.
VERSIONS = {
    "{urn:oasis:names:tc:emergency:cap:1.2}alert": "1.2",
    "{urn:oasis:names:tc:emergency:cap:1.1}alert": "1.1",
    "{http://www.incident.com/cap/1.0}alert": "1.0",
}
MAX_DEPTH = 32
MAX_ATTRIBUTES = 64  # the largest number of attributes and declared namespaces of one element
MAX_NAMESPACES = 64  # the largest number of namespaces that are declared at one place of the document
MAX_NAME = 256  # the most bytes of a name or a namespace, as written
TOO_COMPLEX = "too-complex"
# The largest number of elements, comments and attributes, which take 0.3 s to read; real messages have a few hundred.
MAX_ELEMENTS = 50_000
# The accepted encodings, named as in Python's `codecs`.
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "ascii", "iso8859-1", "cp1252")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_NAME = rb"[^\s<>/\"'=!?&]+"
_VALUE = rb"\"[^<\"]*\"|'[^<']*'"
_OTHER = re.compile(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>", re.DOTALL)
_END = re.compile(rb"</[^<>]*>")
# One attribute more than allowed is read, and the end of the tag is optional. So this takes linear time for any text.
_START = re.compile(rb"<(%b)((?:\s+%b\s*=\s*(?:%b)){0,%d})\s*(/?>)?" % (_NAME, _NAME, _VALUE, MAX_ATTRIBUTES + 1))
_ATTRIBUTE = re.compile(rb"(?<=\s)(%b)\s*=\s*(%b)" % (_NAME, _VALUE))
_DECLARED = re.compile(rb"""<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")


class XmlProblem(Problem):
    """Raised for a document that is refused. `reason` is `malformed-xml`, `doctype` or `too-complex`."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(problems.MALFORMED_XML, f"the document {detail}")
        self.reason = reason


def parse(body: bytes, charset: str | None = None, step: Callable[[], None] = lambda: None) -> Element:
    """Return the root element of the XML document in `body`.

    Raise XmlProblem (`malformed-xml`) if the body is not acceptable XML. `charset` is the parameter of the request's
    `Content-Type`, or None. A byte-order mark in the body takes precedence over `charset`, and `charset` over the
    encoding that the document declares. `step` is called as by `checked`.
    """
    parser = safe_parser(target=_Tree())
    try:
        parser.feed(checked(utf8_of(body, charset), MAX_DEPTH, MAX_ELEMENTS, step))
        root: Element = parser.close()
    except etree.XMLSyntaxError as error:
        line, _ = error.position
        _malformed(f"is not well-formed XML (line {line})")
    # The parser does not stop at namespace errors, so refuse the document if the parser's error log has one. Example:
    # if the prefix x is not declared, the parser reads `<x:info>` as an `info` in no namespace. `children` would
    # then ignore this element, and part of the CAP alert would be lost silently (HD11).
    for entry in parser.feed_error_log:
        if entry.type_name.startswith("NS_ERR"):
            _malformed(f"is not namespace-well-formed XML (line {entry.line})")
    if root.tag.rpartition("}")[2] == "alert" and any(is_cap(each.tag) for each in root.iter() if each is not root):
        _malformed("has an alert in an alert", TOO_COMPLEX)
    return root


def safe_parser(**more: Any) -> etree.XMLParser:
    """Return a parser that fetches nothing and expands no entities, for text that `checked` has returned."""
    # The text is re-encoded as UTF-8, so `encoding` must override the encoding that the document declares.
    limits: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
    return etree.XMLParser(encoding="utf-8", **limits, **more)


class _Tree(TreeBuilder):
    """Builds the tree of elements, without comments and processing instructions. The XML parser calls its methods."""

    def start(self, tag: str, _attributes: object) -> Element:
        return super().start(tag, {})


def children(parent: Element, name: str) -> list[Element]:
    """Return the child elements with the local name `name` and with the same namespace as `parent`."""
    tag = parent.tag[: parent.tag.rfind("}") + 1] + name
    return [child for child in parent if child.tag == tag]


def texts_of(parent: Element, name: str) -> list[str]:
    """Return the texts of the child elements that `children` finds, stripped."""
    return [(child.text or "").strip() for child in children(parent, name)]


def text_of(parent: Element, name: str) -> str:
    """Return the text of the first child element with this name, stripped; "" if there is none."""
    return next(iter(texts_of(parent, name)), "")


def is_cap(tag: object) -> bool:
    """Return whether a tag is that of a CAP message. The tag of a comment in lxml is no text."""
    return tag in VERSIONS


def checked(text: bytes, most_deep: int, most: int, step: Callable[[], None] = lambda: None) -> bytes:
    """Return a document in UTF-8 unchanged, if it is cheap to parse.

    It may be nested up to `most_deep`, and have up to `most` elements, comments and attributes. `step` is called again
    and again meanwhile. Raise XmlProblem if the document is not acceptable. In well-formed XML without a
    DOCTYPE, "<" occurs only where markup begins; everything that can't be well-formed is refused.
    """
    scopes = [0]  # for each open element: the number of namespaces that are declared there
    count, at = 0, text.find(b"<")
    while at >= 0:
        step()
        if end := _END.match(text, at):
            scopes.pop()
        elif end := _OTHER.match(text, at):
            count += 1
        elif text.startswith(b"<!DOCTYPE", at):
            _malformed("must have no DOCTYPE", "doctype")
        elif end := _START.match(text, at):
            attributes = _ATTRIBUTE.findall(end[2]) if end[2] else []
            if len(attributes) > MAX_ATTRIBUTES:
                _malformed(f"has an element with more than {MAX_ATTRIBUTES} attributes and namespaces", TOO_COMPLEX)
            count += 1 + len(attributes)
            scope = scopes[-1] + _declared(end[1], attributes)
            if scope > MAX_NAMESPACES:
                _malformed(f"has an element in more than {MAX_NAMESPACES} declared namespaces", TOO_COMPLEX)
            if len(scopes) > most_deep:
                _malformed(f"is nested deeper than {most_deep}", TOO_COMPLEX)
            if end[3] == b">":
                scopes.append(scope)
        if end is None or end.lastindex == 2 or not scopes:
            line = text.count(b"\n", 0, at) + 1
            _malformed(f"is not well-formed XML (line {line})")
        if count > most:
            _malformed(f"has more than {most} elements, comments and attributes", TOO_COMPLEX)
        at = text.find(b"<", end.end())
    return text


def _declared(name: bytes, attributes: list[tuple[bytes, bytes]]) -> int:
    """Return how many namespaces the attributes of an element declare, after checking the lengths of its names."""
    declared = 0
    for each, value in [(name, b""), *attributes]:
        is_namespace = each == b"xmlns" or each.startswith(b"xmlns:")
        declared += is_namespace
        if len(each) > MAX_NAME or (is_namespace and len(value) > MAX_NAME + 2):
            _malformed(f"has a name or a namespace of more than {MAX_NAME} bytes", TOO_COMPLEX)
    return declared


def utf8_of(body: bytes, charset: str | None) -> bytes:
    """Return an XML document in UTF-8. Its XML declaration, if any, still has the old encoding.

    Raise XmlProblem if it is not text in an accepted encoding. `charset` is used as in `parse`.
    """
    for bom, encoding in _BOMS:
        if body.startswith(bom):
            return _recoded(body[len(bom) :], encoding)
    declared = _DECLARED.match(body)
    return _recoded(body, charset or (declared[1].decode() if declared else "utf-8"))


def _recoded(body: bytes, encoding: str) -> bytes:
    try:
        name = codecs.lookup(encoding).name
        if name not in ENCODINGS:
            _malformed("must be in UTF-8, UTF-16, US-ASCII, ISO-8859-1 or windows-1252")
        return body.decode(name).encode()
    except (LookupError, ValueError):
        _malformed("is not text in the encoding that it is said to have")


def _malformed(detail: str, reason: str = "malformed-xml") -> NoReturn:
    raise XmlProblem(detail, reason)
