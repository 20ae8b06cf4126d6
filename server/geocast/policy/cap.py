"""Which category a CAP message belongs to (P13), and the keys of a policy's `[cap]`.

A **claim** is a text of one of three kinds, the first that fits deciding:

    SAME:TOR         a code of the event, as valueName:value; compared whole and literally
    event:tornado    the event, compared whole, in small letters or capitals
    category:Met     one of CAP's own categories
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, Protocol, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)  # of every table of a policy

# CAP 1.2, 3.2.2.
CapCategory = Literal[
    "Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other"
]
EVENT, CATEGORY = "event:", "category:"
MAX_MAPPING, MAX_MAPPINGS = 200, 200  # characters of a claim; claims of a category

_MAPPING = re.compile(r"[^\s:]([^\x00-\x1f]*[^\s:])?:\S([^\x00-\x1f]*\S)?")


class EventCode(Protocol):
    """A code of an event: the name of the list that it is from, and the code itself."""

    @property
    def name(self) -> str:
        """The name of the list (valueName in CAP)."""

    @property
    def value(self) -> str:
        """The code, as its list has it."""


class Event(Protocol):
    """An event as an `info` element of a CAP message tells it, in one language: what a policy asks it for."""

    @property
    def event(self) -> str:
        """The type of the event, in words."""

    @property
    def codes(self) -> Sequence[EventCode]:
        """The codes of the event, from any lists."""

    @property
    def categories(self) -> Sequence[str]:
        """The categories of CAP that the event has."""


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
    """How many characters of CAP's texts are kept (CP21)."""

    model_config = STRICT

    headline: Annotated[int, Field(ge=20, le=300)] = 250
    description: Annotated[int, Field(ge=20, le=4_000)] = 2_000
    instruction: Annotated[int, Field(ge=20, le=2_000)] = 1_500


class Cap(BaseModel):
    """What is done with CAP messages, whatever their category: which events are ignored, how long texts may be."""

    model_config = STRICT

    ignore: Mappings = []
    texts: CapTexts = CapTexts()


class EventMapping:
    """Lists of claims, by the name of who claims: who has an event?"""

    def __init__(self, lists: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Raises ValueError if a claim is there twice, for then one of the two would never count."""
        self._by: dict[str, tuple[int, str]] = {}
        for n, (name, mappings) in enumerate(lists):
            for mapping in map(_folded, mappings):
                if mapping in self._by:
                    raise ValueError(f"{mapping} is claimed twice, by {self._by[mapping][1]} and by {name}")
                self._by[mapping] = n, name

    def by(self, infos: Sequence[Event]) -> str | None:
        """Who claims an event, in whatever language it is told; None if nobody does.

        Codes count before events, and those before CAP's categories; of several the list that was named first.
        """
        for told in (_codes, _events, _categories):
            found = [self._by[each] for info in infos for each in told(info) if each in self._by]
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
