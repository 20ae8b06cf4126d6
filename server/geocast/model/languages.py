"""Languages: which of its texts an alert is sent in (LA3).

A tag is one of RFC 5646 in the form that is in use: a language and up to three parts behind it. Tags are compared
without regard to case; a part is compared whole, so that "zh-Ha" is not the beginning of "zh-Hant".
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

PATTERN = "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"
MAX_WANTED = 8  # by one subscriber


def understood(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags in one spelling, each once, so that those who want the same want equal tuples."""
    return tuple(dict.fromkeys(tag.lower() for tag in tags))


@lru_cache(maxsize=1_024)  # of one alert nearly all subscribers ask the same few things
def choice(wanted: tuple[str, ...], offered: tuple[str, ...]) -> int:
    """Which of the texts with these tags a subscriber is sent that wants these, the most wanted first: an index.

    `wanted` as `understood` gives it.
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
