"""XML from untrusted senders: nothing is fetched, expanded or waited for (CP2, CP3)."""

import pytest

from geocast.ingest.cap import xml
from geocast.ingest.cap.xml import MAX_ATTRIBUTES, MAX_DEPTH, parse, text_of, texts_of
from geocast.model.problems import Problem

DOCTYPES = {
    "a name alone": "<!DOCTYPE alert>",
    "a DTD to fetch": '<!DOCTYPE alert SYSTEM "http://127.0.0.1:1/x.dtd">',
    "an entity": '<!DOCTYPE alert [<!ENTITY a "b">]>',
    "a file": '<!DOCTYPE alert [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    "a parameter entity": '<!DOCTYPE alert [<!ENTITY % a SYSTEM "http://127.0.0.1:1/">%a;]>',
    "a thousand million laughs": "<!DOCTYPE alert ["
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(9))
    + "]>",
}


def shown(element):
    """Return an element as a nested tuple of name, text and children."""
    return element.tag, element.text or "", [shown(child) for child in element]


def refusal(body, charset=None):
    """Return the error text for a document that is refused."""
    with pytest.raises(Problem) as caught:
        parse(body, charset)
    assert (caught.value.status, caught.value.slug) == (400, "malformed-xml")
    return caught.value.detail


def test_xml_document_is_parsed_to_tree_of_names_and_texts():
    """Comments and processing instructions are dropped; CDATA and references are text (CP3)."""
    body = b'<?xml-stylesheet href="/"?><!-- c --><a>x<!-- c -->y<b>1 &lt; 2</b>tail<c><![CDATA[<&]]></c></a>'
    assert shown(parse(body)) == ("a", "xy", [("b", "1 < 2", []), ("c", "<&", [])])


def test_only_children_in_namespace_of_their_parent_are_found():
    """The prefixes of the elements do not matter (CP4)."""
    root = parse(b'<p:a xmlns:p="urn:1" xmlns:q="urn:2"><p:b>ours</p:b><q:b>theirs</q:b><b>nobody\'s</b></p:a>')
    assert (root.tag, texts_of(root, "b"), text_of(root, "b")) == ("{urn:1}a", ["ours"], "ours")


@pytest.mark.parametrize("doctype", DOCTYPES.values(), ids=DOCTYPES)
@pytest.mark.parametrize("use", ["", "&a;", "&a8;"])
def test_any_doctype_is_refused(doctype, use):
    """This holds whether or not its entities are used (CP3)."""
    assert refusal(f"{doctype}<alert>{use}</alert>".encode()) == "the document must have no DOCTYPE"


@pytest.mark.parametrize(
    "body",
    [
        b"<p:a/>",
        b"<a><b/><p:b>dropped</p:b></a>",
        b'<a p:x="1"/>',
        b'<a xmlns:p="urn:1"><b xmlns:p=""/></a>',
        b'<a xmlns:p="urn:1"/><!-- --><?p:q r?>',
        b'<a xmlns:p="urn:1" xmlns:q="urn:1" p:x="1" q:x="2"/>',
        b'<a xmlns:xml="urn:1"/>',
        b'<a xmlns:p="urn:1"><p:b:c/></a>',
    ],
)
def test_document_that_is_not_namespace_well_formed_is_refused(body):
    """Otherwise elements with an undeclared prefix would be dropped silently (HD11)."""
    assert refusal(body) == "the document is not namespace-well-formed XML (line 1)"


def test_namespaces_that_are_not_urls_are_accepted():
    """The XML specification only discourages such namespaces (CP4)."""
    assert parse(b'<a xmlns="relative" xmlns:q="a b"/>').tag == "{relative}a"


def test_too_deep_nesting_is_refused():
    """33 nested elements are refused, and ten thousand in the same way (CP3)."""
    for depth in (MAX_DEPTH + 1, 10_000):
        assert refusal(b"<a>" * depth + b"</a>" * depth) == "the document is nested deeper than 32"
    parse(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH)


def test_too_many_elements_are_refused(monkeypatch):
    """Parsing a large number of small elements would take seconds (CP3)."""
    monkeypatch.setattr(xml, "MAX_ELEMENTS", 3)
    parse(b"<a><b/><b/></a>")
    for more in (b"<b/>", b"<!---->", b"<?b?>"):
        refused = refusal(b"<a><b/><b/>" + more + b"</a>")
        assert refused == "the document has more than 3 elements, comments and attributes"
    assert "attributes" in refusal(b"<a b='1' c='2' d='3'/>")


@pytest.mark.parametrize("count", [MAX_ATTRIBUTES + 1, 100_000])
def test_too_many_attributes_and_namespaces_are_refused(count):
    """The limit applies to each element (CP3)."""
    crowded = "the document has an element with more than 64 attributes and namespaces"
    for prefix in ("a", "xmlns:a"):
        many = " ".join(f"{prefix}{n}='u'" for n in range(count))
        assert refusal(f"<a {many}/>".encode()) == crowded


@pytest.mark.parametrize(
    "body", [b"", b" ", b"<a>", b"<a></b>", b"<a/><b/>", b"<a>&x;</a>", b"{}", b"<a>\x00</a>", b"<a b=1/>"]
)
def test_document_that_is_not_well_formed_is_refused(body):
    """The error repeats none of the document's text (CP3, H9)."""
    assert refusal(body).startswith("the document is not well-formed XML")


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        ("<a>é</a>".encode(), None),
        (b"\xef\xbb\xbf" + "<a>é</a>".encode(), "iso-8859-1"),
        ("<a>é</a>".encode("utf-16"), None),
        (b"\xfe\xff" + "<a>é</a>".encode("utf-16-be"), "utf-8"),
        ("<a>é</a>".encode("utf-16-le"), "UTF-16LE"),
        ("<a>é</a>".encode("latin-1"), "ISO-8859-1"),
        ("<?xml version='1.0' encoding='windows-1252'?><a>é</a>".encode("cp1252"), None),
        ("<?xml version='1.0' encoding='windows-1252'?><a>é</a>".encode(), "utf-8"),
        (b"<?xml version='1.0' encoding='US-ASCII'?><a>&#233;</a>", None),
    ],
)
def test_byte_order_mark_overrides_charset_and_charset_overrides_declaration(body, charset):
    """RFC 7303, section 3.3, gives this order (CP2)."""
    assert parse(body, charset).text == "é"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (b"<a>\xe9</a>", None),
        (b"<a>\xe9</a>", "us-ascii"),
        (b"<a>+AOk-</a>", "utf-7"),
        (b"<?xml version='1.0' encoding='utf-7'?><a/>", None),
        (b"<a/>", "nonsense"),
        (b"<a/>", "base64"),
        (b"\xff\xfe<", None),
    ],
)
def test_unsupported_encodings_are_refused(body, charset):
    """Bytes that are invalid in the declared encoding are refused, too (CP2)."""
    refusal(body, charset)
