"""Chooses, for each subscriber, one of an alert's texts, which are in several languages (rule LA3).

A language tag is a tag of RFC 5646: a language and up to three subtags ("zh-Hant-TW"). Tags are compared without regard
to case. Subtags are compared as a whole: "zh-Ha" is not a prefix of "zh-Hant".
"""

from collections.abc import Iterable, Sequence
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
    tags = [tag.lower() for tag in offered]
    for one in wanted:
        fitting = [*_equal(one, tags), *_longer(one, tags), *_of_one_language(one, tags)]
        if fitting:
            return fitting[0]
    return 0


def _equal(wanted: str, tags: Sequence[str]) -> Iterable[int]:
    return (n for n, tag in enumerate(tags) if tag == wanted)


def _longer(wanted: str, tags: Sequence[str]) -> Iterable[int]:
    return (n for n, tag in enumerate(tags) if tag.startswith(f"{wanted}-"))


def _of_one_language(wanted: str, tags: Sequence[str]) -> Iterable[int]:
    first = wanted.partition("-")[0]
    return (n for n, tag in enumerate(tags) if tag.partition("-")[0] == first)
