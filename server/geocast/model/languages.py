"""Chooses, for each subscriber, one of an alert's texts, which are in several languages (rule LA3).

A language tag is a tag of RFC 5646: a language and up to three subtags ("zh-Hant-TW"). Tags are compared without regard
to case. Subtags are compared as a whole: "zh-Ha" is not a prefix of "zh-Hant".
"""

from collections.abc import Iterable
from functools import lru_cache

PATTERN = "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"
MAX_WANTED = 8  # the largest number of languages of one subscriber


def understood(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the language tags in lower case and without duplicates, as a tuple.

    Subscribers who want the same languages get equal tuples.
    """
    return tuple(dict.fromkeys(tag.lower() for tag in tags))


@lru_cache(maxsize=1_024)  # most subscribers have the same few wishes
def choice(wanted: tuple[str, ...], offered: tuple[str, ...]) -> int:
    """Return the index in `offered` of the text to send to a subscriber that wants these languages.

    `offered` has the languages of an alert's texts. `wanted`, a result of `understood`, has the most wanted language
    first. For each wanted tag, `offered` is searched for an equal tag, then for a longer tag that starts with the
    wanted one, and then for any tag of the same language. The first match is returned, or 0 if there is no match. For
    example, a subscriber that wants ("de-CH", "en") is sent "de-AT" of ("en", "de-AT").
    """
    for one in wanted:
        ranks = [_rank(one, tag.lower()) for tag in offered]
        best = min(ranks, default=_UNRELATED)
        if best < _UNRELATED:
            return ranks.index(best)
    return 0


_UNRELATED = 3


def _rank(wanted: str, tag: str) -> int:
    """Return how well a tag fits a wanted one: 0 is best."""
    if tag == wanted:
        return 0
    if tag.startswith(f"{wanted}-"):
        return 1
    return 2 if tag.partition("-")[0] == wanted.partition("-")[0] else _UNRELATED
