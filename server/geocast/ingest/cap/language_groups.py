"""Groups the infos of a CAP message into blocks. Each block becomes one alert (rules CP14 and CP15).

An info is the content of a CAP message in one language. Infos in different languages, with the same times, severity and
shapes, are one block. Example: a storm warning in German and in English, and a flood warning in German, are two blocks.
"""

from dataclasses import dataclass

from ...model import problems
from ...model.problems import Problem, Violation
from .message import CapMessage, Info
from .shapes import CapCircle, CapRing

MAX_BLOCKS = 8
ALL_CLEAR = "AllClear"


@dataclass(frozen=True, slots=True)
class Block:
    """A group of infos that becomes one alert: the same content, once in each language, in the issuer's order.

    `at` is the index of the block's first info among all infos of the message.
    """

    infos: tuple[Info, ...]
    at: int

    @property
    def shapes(self) -> tuple[CapCircle | CapRing, ...]:
        """The shapes of the block's areas, without duplicates, in the order of the message."""
        return _shapes(self.infos[0])


def of(message: CapMessage) -> list[Block]:
    """Return the blocks of a message (the groups of infos that become one alert each), ordered by their first infos.

    Raise Problem (422) if there are more than MAX_BLOCKS.
    """
    found: list[tuple[object, int, dict[str, Info]]] = []
    for n, info in enumerate(message.infos):
        same, language = _sameness(info), info.language.lower()
        for its, _, by_language in found:
            # A second info in the same language is dropped as a repetition, unless it has another event.
            if its == same and by_language.setdefault(language, info).event == info.event:
                break
        else:
            found.append((same, n, {language: info}))
            if len(found) > MAX_BLOCKS:
                detail = f"must be about at most {MAX_BLOCKS} different things, not counting languages"
                raise Problem.of([Violation(problems.INVALID_VALUE, "/alert/info", detail)])
    return [Block(tuple(by_language.values()), n) for _, n, by_language in found]


def is_all_clear(message: CapMessage) -> bool:
    """Return whether every info of the message says that the danger is over (rule CP15)."""
    return bool(message.infos) and all(ALL_CLEAR in info.response_types for info in message.infos)


def _sameness(info: Info) -> object:
    """Return a value that is equal for two infos if they belong to the same alert, and different otherwise.

    If an info has shapes, the codes of its areas are not compared.
    """
    shapes = _shapes(info)
    codes = () if shapes else tuple(code for area in info.areas for code in area.codes)
    responses = frozenset(info.response_types)
    told = (info.severity, info.urgency, info.certainty, info.begins_at, info.expires_at, responses)
    return told, frozenset(shapes), codes


def _shapes(info: Info) -> tuple[CapCircle | CapRing, ...]:
    return tuple(dict.fromkeys(shape for area in info.areas for shape in area.shapes))
