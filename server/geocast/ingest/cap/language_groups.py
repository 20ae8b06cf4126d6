"""Infos that say the same in several languages are one block, and become one alert (CP14, CP15)."""

from dataclasses import dataclass

from ...model import problems
from ...model.problems import Problem, Violation
from .message import CapMessage, Info
from .shapes import CapCircle, CapRing

MAX_BLOCKS = 8
ALL_CLEAR = "AllClear"


@dataclass(frozen=True, slots=True)
class Block:
    """Infos of different languages about the same, in the issuer's order. `at`: where the first of them stands."""

    infos: tuple[Info, ...]
    at: int

    @property
    def shapes(self) -> tuple[CapCircle | CapRing, ...]:
        """All shapes of its areas, each once, in the order of the message."""
        return _shapes(self.infos[0])


def of(message: CapMessage) -> list[Block]:
    """The blocks of a message, in its order. Raises Problem if there are more than MAX_BLOCKS."""
    found: list[tuple[object, int, dict[str, Info]]] = []
    for n, info in enumerate(message.infos):
        same, language = _sameness(info), info.language.lower()
        for its, _, by_language in found:
            # One more of the same language is a repeat, unless it tells of another event.
            if its == same and by_language.setdefault(language, info).event == info.event:
                break
        else:
            found.append((same, n, {language: info}))
            if len(found) > MAX_BLOCKS:
                detail = f"must be about at most {MAX_BLOCKS} different things, not counting languages"
                raise Problem.of([Violation(problems.INVALID_VALUE, "/alert/info", detail)])
    return [Block(tuple(by_language.values()), n) for _, n, by_language in found]


def is_all_clear(message: CapMessage) -> bool:
    """Whether the message says that it is over, and nothing else (CP15)."""
    return bool(message.infos) and all(ALL_CLEAR in info.response_types for info in message.infos)


def _sameness(info: Info) -> object:
    """What infos of one block have in common: shapes by value, and codes only where there are none."""
    shapes = _shapes(info)
    codes = () if shapes else tuple(code for area in info.areas for code in area.codes)
    responses = frozenset(info.response_types)
    told = (info.severity, info.urgency, info.certainty, info.begins_at, info.expires_at, responses)
    return told, frozenset(shapes), codes


def _shapes(info: Info) -> tuple[CapCircle | CapRing, ...]:
    found: dict[CapCircle | CapRing, None] = {}
    for area in info.areas:
        found |= dict.fromkeys(area.rings) | dict.fromkeys(area.circles)
    return tuple(found)
