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
from dataclasses import dataclass, field
from typing import NoReturn

from lxml import etree

from ...model import problems
from ...model.problems import Problem

# By namespace, the versions of CAP.
NAMESPACES = {
    "urn:oasis:names:tc:emergency:cap:1.2": "1.2",
    "urn:oasis:names:tc:emergency:cap:1.1": "1.1",
    "http://www.incident.com/cap/1.0": "1.0",
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


@dataclass(slots=True)
class Element:
    """An XML element: its namespace ("" for none), local name, children, and the text before the first child."""

    namespace: str
    name: str
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def all(self, name: str) -> "list[Element]":
        """Return the children with the local name `name` and with the same namespace as this element."""
        return [child for child in self.children if child.name == name and child.namespace == self.namespace]


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
    tree = _Tree()
    parser = etree.XMLParser(
        target=tree, encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        # The text is re-encoded as UTF-8, so `encoding` must override the encoding that the document declares.
        parser.feed(checked(utf8_of(body, charset), MAX_DEPTH, MAX_ELEMENTS, step))
        parser.close()
    except etree.XMLSyntaxError as error:
        line, _ = error.position
        _malformed(f"is not well-formed XML (line {line})")
    # The parser does not stop at namespace errors, so refuse the document if the parser's error log has one. Example:
    # if the prefix x is not declared, the parser reads `<x:info>` as an `info` in no namespace. `Element.all` would
    # then ignore this element, and part of the CAP alert would be lost silently (HD11).
    for entry in parser.feed_error_log:
        if entry.type_name.startswith("NS_ERR"):
            _malformed(f"is not namespace-well-formed XML (line {entry.line})")
    if tree.root is None:
        _malformed("is not well-formed XML")
    return tree.root


class _Tree:
    """Builds the tree of elements. The XML parser calls the methods of this class."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._text: list[str] = []

    def start(self, tag: str, _attributes: dict[str, str], _namespaces: dict[str, str] | None = None) -> None:
        self._end_text()
        namespace, _, name = tag.rpartition("}")
        element = Element(namespace.removeprefix("{"), name)
        if self._open:
            if is_cap(tag) and self.root is not None and self.root.name == "alert":
                _malformed("has an alert in an alert", TOO_COMPLEX)
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, _tag: str) -> None:
        self._end_text()
        self._open.pop()

    def close(self) -> None:
        pass

    def _end_text(self) -> None:
        """Store the collected text as that of the innermost open element, unless this element already has a child."""
        if self._open and not self._open[-1].children:
            self._open[-1].text += "".join(self._text)
        self._text.clear()


def is_cap(tag: object) -> bool:
    """Return whether a tag of lxml is that of a CAP message. The tag of a comment is no text."""
    namespace, _, name = tag.removeprefix("{").rpartition("}") if isinstance(tag, str) else ("", "", "")
    return name == "alert" and namespace in NAMESPACES


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
