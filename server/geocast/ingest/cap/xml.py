"""A small and safe XML parser for CAP messages, which makes a tree of elements (rules CP2, CP3 and HD11).

The parser never fetches anything, and expands no entities. It refuses document type declarations, deep nesting, and too
many elements or attributes as soon as it meets them. Example: the "billion laughs" document, whose entities expand to
gigabytes, is refused at its first line. Attributes are dropped, because CAP has none, and so are comments and
processing instructions.
"""

import codecs
import re
from dataclasses import dataclass, field
from typing import NoReturn

from lxml import etree

from ...model import problems
from ...model.problems import Problem

MAX_DEPTH = 32
MAX_ATTRIBUTES = 64  # the largest number of attributes and declared namespaces of one element
MAX_ELEMENTS = 50_000  # the largest number of elements, which take 0.3 s to read; real messages have a few hundred
# The accepted encodings, named as in Python's `codecs`.
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "ascii", "iso8859-1", "cp1252")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
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


def parse(body: bytes, charset: str | None = None) -> Element:
    """Return the root element of the XML document in `body`.

    Raise Problem (`malformed-xml`) if the body is not acceptable XML. `charset` is the parameter of the request's
    `Content-Type`, or None. A byte-order mark in the body takes precedence over `charset`, and `charset` over the
    encoding that the document declares.
    """
    tree = _Tree()
    parser = etree.XMLParser(
        target=tree, encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        # The text is re-encoded as UTF-8, so `encoding` must override the encoding that the document declares.
        parser.feed(utf8_of(body, charset))
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
    """Builds the tree of elements. The XML parser calls the methods of this class.

    They raise Problem for everything that a CAP message never needs.
    """

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._elements = 0
        self._text: list[str] = []

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> NoReturn:
        _malformed("must have no DOCTYPE")

    def start(self, tag: str, attributes: dict[str, str], namespaces: dict[str, str] | None = None) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            _malformed(f"has more than {MAX_ELEMENTS} elements")
        if len(self._open) >= MAX_DEPTH:
            _malformed(f"is nested deeper than {MAX_DEPTH}")
        if len(attributes) + len(namespaces or ()) > MAX_ATTRIBUTES:
            _malformed(f"has an element with more than {MAX_ATTRIBUTES} attributes and namespaces")
        self._end_text()
        namespace, _, name = tag.rpartition("}")
        element = Element(namespace.removeprefix("{"), name)
        if self._open:
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


def utf8_of(body: bytes, charset: str | None) -> bytes:
    """Return an XML document in UTF-8. Its XML declaration, if any, still has the old encoding.

    Raise Problem (`malformed-xml`) if it is not text in an accepted encoding. `charset` is used as in `parse`.
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


def _malformed(detail: str) -> NoReturn:
    raise Problem(problems.MALFORMED_XML, f"the document {detail}")
