"""The mapping from CAP events to the policy's categories (rule P13), and the keys of a policy's `[cap]`.

Each category of the policy has a list of mappings: strings that say which CAP events belong to it. There are three
kinds of mappings:

    SAME:TOR         a code of the event, as valueName:value; compared whole and literally
    event:tornado    the name of the event; compared whole, ignoring case
    category:Met     one of CAP's own categories

Codes are looked up first, then names, then CAP's categories. Example: an event with the code SAME:TOR, the name "Severe
weather" and CAP's category Met belongs to the policy's category that has the mapping SAME:TOR.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, Protocol, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)  # for every table of a policy

# The categories of CAP 1.2, section 3.2.2.
CapCategory = Literal[
    "Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other"
]
EVENT, CATEGORY = "event:", "category:"
MAX_MAPPING, MAX_MAPPINGS = 200, 200  # the largest numbers of characters in a mapping, and of mappings in a category

_MAPPING = re.compile(r"[^\s:]([^\x00-\x1f]*[^\s:])?:\S([^\x00-\x1f]*\S)?")


class EventCode(Protocol):
    """A code of a CAP event: the code itself, and the name of the list to which it belongs."""

    @property
    def name(self) -> str:
        """The name of the list to which the code belongs (valueName in CAP)."""

    @property
    def value(self) -> str:
        """The code as it is written in the list to which it belongs."""


class Event(Protocol):
    """The parts of a CAP `info` element that decide to which category of the policy the event belongs.

    Each `info` element describes the event in one language.
    """

    @property
    def event(self) -> str:
        """The type of the event, in words."""

    @property
    def codes(self) -> Sequence[EventCode]:
        """The codes of the event, which may belong to several lists."""

    @property
    def categories(self) -> Sequence[str]:
        """The categories of the event, among those that CAP defines (such as "Met")."""


def _mapping(text: str) -> str:
    if not _MAPPING.fullmatch(text):
        expected = "must be valueName:value of an event's code, event:EVENT or category:CATEGORY"
        raise PydanticCustomError("claim", expected)
    if text.startswith(CATEGORY) and text.removeprefix(CATEGORY) not in get_args(CapCategory):
        known = ", ".join(get_args(CapCategory))
        raise PydanticCustomError("cap_category", "must name one of CAP's categories: {known}", {"known": known})
    return text


Mappings = Annotated[
    list[Annotated[str, Field(max_length=MAX_MAPPING), AfterValidator(_mapping)]], Field(max_length=MAX_MAPPINGS)
]


class CapTexts(BaseModel):
    """The maximum lengths, in characters, of alert texts from CAP. Longer texts are shortened (rule CP21)."""

    model_config = STRICT

    headline: Annotated[int, Field(ge=20, le=300)] = 250
    description: Annotated[int, Field(ge=20, le=4_000)] = 2_000
    instruction: Annotated[int, Field(ge=20, le=2_000)] = 1_500


class Cap(BaseModel):
    """The keys of a policy's `[cap]`, for CAP messages of all categories.

    `ignore` has the events to ignore, and `texts` the maximum lengths of texts.
    """

    model_config = STRICT

    ignore: Mappings = []
    texts: CapTexts = CapTexts()


class EventMapping:
    """Finds, among several named lists of mappings, the list that has a mapping for a CAP event.

    A mapping is a string such as "SAME:TOR", which says for which events it stands.
    """

    def __init__(self, lists: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Prepare the lists of mappings, given as pairs (name, mappings).

        Raise ValueError if a mapping occurs twice, because the second one would have no effect.
        """
        self._by: dict[str, tuple[int, str]] = {}
        for n, (name, mappings) in enumerate(lists):
            for mapping in map(_folded, mappings):
                if mapping in self._by:
                    raise ValueError(f"{mapping} is mapped twice, by {self._by[mapping][1]} and by {name}")
                self._by[mapping] = n, name

    def by(self, infos: Sequence[Event]) -> str | None:
        """Return the name of the list that has a mapping for a CAP event; None if there is no such list.

        `infos` describe the same event, each in one language. Codes are looked up first, then names of events, then
        CAP's categories. If several lists have a mapping for one of the codes (or names, or categories), the first of
        these lists counts.
        """
        for keys_of in (_codes, _events, _categories):
            found = [self._by[each] for info in infos for each in keys_of(info) if each in self._by]
            if found:
                return min(found)[1]
        return None


def _folded(mapping: str) -> str:
    return mapping.casefold() if mapping.startswith(EVENT) else mapping


def _codes(info: Event) -> Iterator[str]:
    names = (f"{code.name}:{code.value}" for code in info.codes)
    return (name for name in names if not name.startswith((EVENT, CATEGORY)))


def _events(info: Event) -> Iterator[str]:
    yield _folded(EVENT + info.event)


def _categories(info: Event) -> Iterator[str]:
    return (CATEGORY + each for each in info.categories)
