"""A CAP message as data classes named as in CAP, with every field checked (rules CP4 to CP6, CP22 and CP23).

The elements that geocast does not use are dropped: contact, senderName, audience, parameter, resource, incidents, code,
addresses, restriction, altitude and ceiling. Each violation has a pointer to the element, counting from 0, such as
`/alert/info/0/area/1/polygon/0`. Violations never repeat a value (rule H9).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

from ...model import languages, problems
from ...model.problems import Problem, ProblemType, Violation
from ...model.times import parse_time
from . import shapes, texts
from .shapes import CapCircle, CapRing
from .xml import VERSIONS, children, is_cap, parse, text_of, texts_of

STATUSES = ("Actual", "Exercise", "System", "Test", "Draft")
TYPES = ("Alert", "Update", "Cancel", "Ack", "Error")
SCOPES = ("Public", "Restricted", "Private")
SEVERITIES = ("Extreme", "Severe", "Moderate", "Minor", "Unknown")
URGENCIES = ("Immediate", "Expected", "Future", "Past", "Unknown")
CERTAINTIES = ("Observed", "Likely", "Possible", "Unlikely", "Unknown")
MAX_REFERENCES = 100
MAX_NAME = 512  # the largest number of characters of an identifier or a sender
DEFAULT_LANGUAGE = "en-US"
UNKNOWN_LANGUAGE = "und"  # "undetermined" in RFC 5646

_NAME = re.compile(r"[^\s,<&]{1,512}")
_NO_OFFSET = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(?:\.[0-9]{1,9})?", re.ASCII)
_LANGUAGE = re.compile(languages.PATTERN)
_WEB = re.compile(r"https?://[!#-;=?-~]{1,990}", re.IGNORECASE | re.ASCII)  # a URL is ASCII (RFC 3986)
# Words of CAP 1.0, and the words of later versions that replace them.
_OLD_WORDS = {"Very Likely": "Likely"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CapCode:
    """A code that CAP uses for an event or an area, such as EMMA_ID AT301.

    `name` is the name of the list to which the code belongs (`valueName` in CAP), and `value` is the code itself.
    """

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference in a message to another message, by its sender and identifier.

    A reference in CAP has a third part, the other message's `sent`. It is dropped because it is often wrong (rule
    CP11).
    """

    sender: str
    identifier: str


@dataclass(frozen=True, slots=True)
class Area:
    """An area of a message, described by shapes, by codes, or by both. `repr` does not show its coordinates."""

    description: str
    circles: tuple[CapCircle, ...]
    rings: tuple[CapRing, ...]
    codes: tuple[CapCode, ...]

    @property
    def shapes(self) -> tuple[CapCircle | CapRing, ...]:
        """All shapes of the area, the polygons first."""
        return self.rings + self.circles


@dataclass(frozen=True, slots=True)
class Info:
    """The content of a message in one language. Times are in ms since 1970; None if their element is absent."""

    language: str
    event: str
    categories: tuple[str, ...]
    codes: tuple[CapCode, ...]
    severity: str | None  # in lower case; None also for "Unknown"
    urgency: str
    certainty: str
    begins_at: int | None  # from `onset`, or from `effective` if there is no `onset`
    expires_at: int | None
    response_types: tuple[str, ...]
    headline: str
    description: str
    instruction: str
    web: str | None
    areas: tuple[Area, ...]


@dataclass(frozen=True, slots=True)
class CapMessage:
    """A CAP message. `sent` is in ms since 1970. `notes` name what was corrected when the message was read."""

    version: str
    identifier: str
    sender: str
    sent: int
    status: str
    type: str
    scope: str
    note: str
    references: tuple[Reference, ...]
    infos: tuple[Info, ...]
    notes: frozenset[str] = field(default=frozenset())


def read(body: bytes, charset: str | None = None, assume_offset: str | None = None) -> CapMessage:
    """Return the CAP message in `body`, after checking all its fields.

    `charset` is the parameter of the request's `Content-Type`. `assume_offset` is the UTC offset, such as "+00:00", for
    times without an offset; if it is None, such times are refused. Raise Problem: 400 `malformed-xml` if the body is
    not XML, 422 `not-cap` if it is not a CAP message, or 422 with each field that is missing or invalid.
    """
    root = parse(body, charset)
    if not is_cap(root.tag):
        raise Problem.of([Violation(problems.NOT_CAP, "", problems.NOT_CAP.explanation)])
    reader = _Reader(assume_offset)
    message = reader.message(root)
    if reader.violations:
        raise Problem.of(reader.violations)
    return message


class _Reader:
    """Reads one CAP message. Collects all violations of rules, so that they are reported together."""

    def __init__(self, assume_offset: str | None) -> None:
        self.violations: list[Violation] = []
        self._assume_offset = assume_offset
        self._notes: set[str] = set()
        # By the name and the text of an element: the shape and its notes. Each language repeats the same texts.
        self._read: dict[tuple[str, str], Any] = {}
        self._work = 0

    # ---- elements of a message ---------------------------------------------------------------------------

    def message(self, root: Element) -> CapMessage:
        version = VERSIONS[root.tag]
        if version != "1.2":
            self._notes.add(f"cap-{version}")
        if root.find("{*}Signature") is None:
            self._notes.add("unsigned")
        kind = self._word(root, "/alert", "msgType", TYPES, needed=True)
        infos = list(enumerate(children(root, "info")))
        if kind in ("Alert", "Update") and not infos:
            self._broken(problems.MISSING_FIELD, "/alert/info", "is needed")
        said = [self._info(element, f"/alert/info/{n}", needed=kind in ("Alert", "Update")) for n, element in infos]
        return CapMessage(
            version=version,
            identifier=self._name(root, "identifier"),
            sender=self._name(root, "sender"),
            sent=self._time(root, "/alert", "sent", needed=True) or 0,
            status=self._word(root, "/alert", "status", STATUSES, needed=True),
            type=kind,
            scope=self._word(root, "/alert", "scope", SCOPES, needed=True),
            note=texts.one_line(text_of(root, "note")),
            references=self._references(root),
            infos=tuple(said),
            notes=frozenset(self._notes),
        )

    def _references(self, root: Element) -> tuple[Reference, ...]:
        parts = " ".join(texts_of(root, "references")).split()
        named = [part.split(",") for part in parts]
        if len(parts) > MAX_REFERENCES or not all(len(n) == 3 and all(map(_NAME.fullmatch, n)) for n in named):
            detail = f"must be at most {MAX_REFERENCES} of the form sender,identifier,sent"
            self._broken(problems.INVALID_VALUE, "/alert/references", detail)
            return ()
        return tuple(Reference(sender, identifier) for sender, identifier, _ in named)

    def _info(self, element: Element, at: str, *, needed: bool) -> Info:
        event = texts.one_line(text_of(element, "event"))
        if needed and not event:
            self._broken(problems.MISSING_FIELD, f"{at}/event", "is needed")
        severity = self._word(element, at, "severity", SEVERITIES).lower()
        onset, effective = self._time(element, at, "onset"), self._time(element, at, "effective")
        web = text_of(element, "web")
        return Info(
            language=self._language(element),
            event=event,
            categories=tuple(map(texts.one_line, texts_of(element, "category"))),
            codes=_codes(element, "eventCode"),
            severity=None if severity in ("unknown", "") else severity,
            urgency=self._word(element, at, "urgency", URGENCIES).lower() or "unknown",
            certainty=self._word(element, at, "certainty", CERTAINTIES).lower() or "unknown",
            begins_at=effective if onset is None else onset,
            expires_at=self._time(element, at, "expires"),
            response_types=tuple(map(texts.one_line, texts_of(element, "responseType"))),
            headline=texts.one_line(text_of(element, "headline")) or event,
            description=texts.tidy(text_of(element, "description")),
            instruction=texts.tidy(text_of(element, "instruction")),
            web=web if _WEB.fullmatch(web) else None,
            areas=tuple(self._area(area, f"{at}/area/{n}") for n, area in enumerate(children(element, "area"))),
        )

    def _area(self, element: Element, at: str) -> Area:
        circles = self._shapes(element, at, "circle", shapes.circle)
        rings = self._shapes(element, at, "polygon", shapes.polygon)
        description = texts.one_line(text_of(element, "areaDesc"))
        return Area(description, tuple(circles), tuple(rings), _codes(element, "geocode"))

    def _shapes(
        self, element: Element, at: str, name: str, parsed: Callable[[str], tuple[_T, frozenset[str]]]
    ) -> Iterator[_T]:
        """Yield the shapes in the child elements `name`, whose texts `parsed` parses, until they are too much work."""
        for n, text in enumerate(texts_of(element, name)):
            if not text:
                continue  # an empty element counts as absent
            where = f"{at}/{name}/{n}"
            if (name, text) not in self._read:
                self._work += shapes.work_of(text)
                if self._work > shapes.MAX_WORK:
                    detail = f"must be shapes of at most {shapes.MAX_WORK} corners in the whole message"
                    self._broken(problems.AREA_TOO_COMPLEX, where, detail)
                    return
                try:
                    self._read[name, text] = parsed(text)
                except ValueError as error:
                    self._broken(problems.INVALID_VALUE, where, str(error))
                    continue
            shape, notes = self._read[name, text]
            self._notes |= notes
            yield shape

    # ---- fields of an element --------------------------------------------------------------------------------------

    def _name(self, root: Element, name: str) -> str:
        text = text_of(root, name)
        if not text:
            self._broken(problems.MISSING_FIELD, f"/alert/{name}", "is needed")
        elif not _NAME.fullmatch(text):
            detail = f"must be 1 to {MAX_NAME} characters without white space, comma, < and &"
            self._broken(problems.INVALID_VALUE, f"/alert/{name}", detail)
        return text

    def _word(self, element: Element, at: str, name: str, words: Sequence[str], *, needed: bool = False) -> str:
        """Return the text of the child element `name` if it is one of `words`, otherwise "".

        Record a violation if the child has another text; or if it is absent although `needed` is true.
        """
        text = texts.one_line(text_of(element, name))
        text = _OLD_WORDS.get(text, text)
        if text in words:
            return text
        if text:
            self._broken(problems.INVALID_VALUE, f"{at}/{name}", f"must be one of {', '.join(words)}")
        elif needed:
            self._broken(problems.MISSING_FIELD, f"{at}/{name}", "is needed")
        return ""

    def _language(self, element: Element) -> str:
        """Return the language of an info as a language tag of RFC 5646.

        If the info's text is not such a tag, return UNKNOWN_LANGUAGE (rule HD12).
        """
        text = text_of(element, "language").replace("_", "-") or DEFAULT_LANGUAGE
        if _LANGUAGE.fullmatch(text):
            return text
        self._notes.add("language-unknown")
        return UNKNOWN_LANGUAGE

    def _time(self, element: Element, at: str, name: str, *, needed: bool = False) -> int | None:
        text = text_of(element, name)
        if not text:
            if needed:
                self._broken(problems.MISSING_FIELD, f"{at}/{name}", "is needed")
            return None
        if _NO_OFFSET.fullmatch(text) and self._assume_offset is not None:
            self._notes.add("offset-assumed")
            text += self._assume_offset
        try:
            return parse_time(text)
        except ValueError:
            detail = "must be a time with an offset, such as 2026-01-31T12:00:00-00:00"
            self._broken(problems.INVALID_VALUE, f"{at}/{name}", detail)
            return None

    def _broken(self, kind: ProblemType, pointer: str, detail: str) -> None:
        self.violations.append(Violation(kind, pointer, detail))


def is_name(text: str) -> bool:
    """Return whether `text` is allowed as the `identifier` or the `sender` of a message (rule CP5)."""
    return _NAME.fullmatch(text) is not None


def _codes(element: Element, name: str) -> tuple[CapCode, ...]:
    return tuple(code for child in children(element, name) if (code := _code(child)) is not None)


def _code(element: Element) -> CapCode | None:
    """Return the code in an element, or None if the name of its list or its value is empty.

    These two parts are in the children `valueName` and `value`, or in a text "name=value" as in CAP 1.0.
    """
    if not len(element):
        name, _, value = (element.text or "").strip().partition("=")
    else:
        name, value = (text_of(element, part) for part in ("valueName", "value"))
    return CapCode(name, value) if name and value else None
