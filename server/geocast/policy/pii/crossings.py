"""Finds crossings in a text: places where two streets meet, or where a street is near another one (rules TX3, HD13).

A street is recognised by its suffix, number or ordinal ("Oak St", "US 75", "5th"). A bare name ("Elm") counts as a
street only beside such a street, or if the words around it say so ("the Elm/Oak intersection", "Elm and Oak Streets").

Streets that are the limits of a closure or a detour are not a crossing: "Elm Street is closed between Oak Avenue and
Pine Road".

In all functions, `at` is the index of a token, and the *end* of something is the index of the first token after it.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from .addresses import DATES, SMALL, is_ordinal, prefixed, route, street, street_before, suffixed_before
from .tokens import END, Span, Token, TokenList, has_any
from .words import WordSets

_W = WordSets("streets")
_CROSS_STREETS = frozenset({"st", "street", "streets"})
_AT = frozenset({"at", "near", "on"})
_CROSSES = frozenset({"cross", "x", "xst"})
_LIMITS = _W.between | {"from"}
_ABBREVIATIONS = _W.suffixes | _W.directions | {"dr", "jr", "sr", "mt", "ft"}
_CORNER_LEADS = _W.corners | _W.abbreviated_corners | _CROSSES
_ANCHORS = {each: getattr(_W, f"anchors_{each}") for each in ("of", "to", "with")}
_AREAS, _APART, _CORNER_FILLS = _W.meetings | {"area"}, _W.apart - {"and"}, _W.corners_of | {"the", "is", "are"}
_NOT_STREETS = _W.not_streets | (_W.function - {"new"}) | DATES | _W.meetings
_SIGNS = frozenset("&/\\@+")
_LONGEST_NAME = 6  # the largest number of tokens in a bare name, such as Martin Luther King
_LONGEST_GAP = 12  # the largest number of tokens between two streets that belong together
_MOST_FILLS = 5  # the largest number of tokens between a joining word and the second street
_SENTENCE = 25  # the number of tokens before and after a word that count as its sentence


def crossings(tokens: TokenList) -> Iterator[Span]:
    """Yield each crossing of streets in the text, as a range of tokens."""
    for first, second in pairwise(_streets(tokens)):
        if _is_related(tokens, first, second):
            yield first[0], second[1]
    for at, token in enumerate(tokens):
        span = None
        if token.text in _SIGNS or (token.text == "-" and at):
            span = _by_sign(tokens, at)
        elif token.lower in _LIMITS and at:
            span = _between(tokens, at)
        elif token.lower in _CORNER_LEADS and (corner := _corner(tokens, at)):
            span = at, corner
        elif token.lower in _W.joins and at:
            span = _by_word(tokens, at)
        elif token.lower == "where":
            span = _where(tokens, at)
        if span is not None:
            yield span


def _streets(tokens: TokenList) -> list[Span]:
    """Return the streets in the text, in order, as ranges of tokens.

    A street must have a suffix ("Oak St"), a number ("US 75") or an ordinal ("5th"), or its kind must come before its
    name ("Avenue B"). Streets that are only a name ("Elm") are not found.
    """
    found: list[Span] = []
    for at, token in enumerate(tokens):
        direction = token.lower in _W.directions
        if found and found[-1][1] == at and (direction or (token.text == "." and _is_abbreviated(tokens, at))):
            found[-1] = found[-1][0], at + 1
        elif (end := prefixed(tokens, at)) is not None:
            found.append((at, end))
        elif token.word or token.digits:
            start = None if direction else suffixed_before(tokens, at + 1)
            if start is not None and found and start < found[-1][1]:
                found[-1] = found[-1][0], max(at + 1, found[-1][1])
            elif start is not None:
                found.append((start, at + 1))
    return found


def _is_abbreviated(tokens: TokenList, at: int) -> bool:
    """Return whether the full stop at token `at` ends an abbreviation: "Rd.", "St. Mary's", "J. Smith"."""
    before = tokens[at - 1] if at else END
    return before.capital and len(before.text) < 5 and (len(before.text) == 1 or before.lower in _ABBREVIATIONS)


def _is_related(tokens: TokenList, first: Span, second: Span) -> bool:
    """Return whether the words between two streets say that the streets meet, or that one is near the other.

    The last word that can say so decides ("in front of the bank *at* Oak Street"). Streets are unrelated if one of the
    following is between them: the end of a sentence, a word for a closed road, or the start of another clause.
    """
    end, start = first[1], second[0]
    if not 0 < start - end <= _LONGEST_GAP or any(_separates(tokens, at) for at in range(end, start)):
        return False
    if is_ordinal(tokens[second[1] - 1]) and _is_order(tokens, first[0], second[1]):
        return False
    if {tokens[end - 1].lower, tokens[second[1] - 1].lower} <= _W.quarters:
        return False
    at = start - 1
    while at > end and (tokens[at].capital or tokens[at].text in ".:'" or tokens[at].lower in _W.particles):
        if tokens[at].lower in _W.relations or tokens[at].lower in ("from", "on", *_ANCHORS):
            break
        at -= 1
    word = tokens[at].lower
    if word == "on" and at == end:
        # For example: "the bus stop at Oak Avenue on Elm Street".
        return not has_any(tokens[end:start], DATES)
    if word == "from":  # "a block from" describes a place; "from" alone may begin a stretch of road
        return at > end + 1 or (tokens.at(second[1]).lower != "to" and not _is_road_talk(tokens, at))
    if at <= end + 1 and word == "of" and _are_routes(tokens, first[0], second[0]):
        return False  # not a crossing: "I-80 west of Highway 50"
    if word in _ANCHORS:
        return has_any(tokens[end - 1 : at], _ANCHORS[word])
    return word in _W.relations and not (word in _W.moves and _is_road_talk(tokens, at))


def _are_routes(tokens: TokenList, one: int, other: int) -> bool:
    return route(tokens, one) is not None and route(tokens, other) is not None


def _separates(tokens: TokenList, at: int) -> bool:
    token, behind = tokens[at], tokens.at(at + 1)
    if token.lower == "and" and (behind.lower.endswith("ed") or behind.lower in ("hit", "ran", "struck")):
        return False  # not a separation: "the car went down Elm Street and crashed at Oak Avenue"
    return token.text in ";!?" or (token.text == "." and not _is_abbreviated(tokens, at)) or token.lower in _W.apart


def _is_road_talk(tokens: TokenList, at: int) -> bool:
    """Return whether the sentence around token `at` tells people where to drive, or where to stay.

    The streets in such a sentence are limits of a stretch of road, not a place.
    """
    return has_any(tokens[max(at - _SENTENCE, 0) : at + _SENTENCE], _W.road_talk)


def _is_order(tokens: TokenList, start: int, end: int) -> bool:
    """Return whether the ordinals among the tokens from `start` to `end` are dates or ranks rather than streets.

    Examples: "May 5th", "the 5th of May", "7th and 8th graders".
    """
    before = tokens[start - 1].lower if start else ""
    both = before == "the" and is_ordinal(tokens[start]) and is_ordinal(tokens[end - 1])
    behind = tokens.at(end)
    dated = behind.lower in DATES and behind.capital
    return before in DATES or dated or behind.lower in _W.ordered or (both and behind.lower not in _AREAS)


def _between(tokens: TokenList, at: int) -> Span | None:
    """Find a crossing such as "Elm Street between 5th and 7th". Token `at` is the word "between" (or "from").

    Return the range of tokens of the crossing, or None if there is no crossing. If the text is about a closed road, the
    streets are the limits of the closure, and not a crossing.
    """
    behind = at - (tokens[at - 1].text in ",(")
    before = street_before(tokens, behind)
    if before is None and tokens[behind - 1].lower in _W.stretches:
        before = behind - 1
    if before is None or not _is_named(tokens, at + 1) or route(tokens, before) or _is_road_talk(tokens, at):
        return None
    joins = ("to",) if tokens[at].lower == "from" else ("and", "&")
    for join in range(at + 2, min(at + 3 + _LONGEST_NAME, len(tokens))):
        if tokens[join].lower in joins and _is_named(tokens, join + 1):
            return before, street(tokens, join + 1) or join + 2
    return None


def _where(tokens: TokenList, at: int) -> Span | None:
    """Find a crossing such as "where Elm ends at Oak Street". Token `at` is the word "where".

    Return the range of tokens of the crossing, or None if there is no crossing. If both streets are only names ("Elm"),
    the words must say that the streets meet.
    """
    end = _name(tokens, at + 1)
    if end is None:
        return None
    for second in range(end + 1, min(end + _MOST_FILLS, len(tokens))):
        verb, between = tokens[end].lower, tokens[second - 1]
        if not between.word or between.lower in _APART or (between.capital and between.lower not in _W.joins):
            return None
        if (last := _name(tokens, second)) is not None:
            streets = [street_before(tokens, each) is not None for each in (end, last)]
            met = (verb in _W.meets or tokens.at(last).lower in _W.meetings) and not _is_water(tokens[at:last])
            return (at + 1, last) if met or all(streets) or (any(streets) and between.lower in _W.relations) else None
    return None


def _is_water(name: Sequence[Token]) -> bool:
    """Return whether a name is the name of a river, a mountain or something similar, rather than of a street."""
    return has_any(name, _W.waters)


def _is_named(tokens: TokenList, at: int) -> bool:
    """Return whether a name with a capital letter, an ordinal, or another kind of street begins at token `at`."""
    return tokens.at(at).capital or tokens.at(at).ordinal or street(tokens, at) is not None


def _name(tokens: TokenList, at: int) -> int | None:
    """Find a street that begins at token `at`; it may be only a name, without a suffix ("Elm").

    Return the index of the first token after the street, or None if there is no street.
    """
    at += tokens.at(at).text == "the"
    if tokens.at(at).lower in _W.directions and tokens.at(at + 1).text == ".":
        at += 2
    if (end := prefixed(tokens, at) or route(tokens, at)) is not None:
        return end
    end = at
    while end < at + _LONGEST_NAME and (is_ordinal(tokens.at(end)) or _is_bare(tokens, end)):
        end += 1
        joined = tokens.at(end).text in "-." and tokens.at(end).end == tokens.at(end + 1).start
        if joined and tokens.at(end + 1).word:
            end += 1 + (tokens[end].text == "-" and not tokens.at(end + 1).capital)  # for example: "Stoke-on-Trent"
    if end == at:
        return street(tokens, at)
    return end + (tokens.at(end).lower in _W.suffixes - _W.meetings and not tokens.at(end).capital)


def _corner(tokens: TokenList, at: int) -> int | None:
    """Find a phrase such as "corner of Elm" or "cross street: Elm" that begins at token `at`.

    If a second street follows ("corner of Elm and Oak"), it belongs to the phrase. Return the index of the first token
    after the phrase, or None if there is no such phrase.
    """
    word, name = tokens[at].lower, at + 1
    if word in _CROSSES:
        name += tokens.at(name).text == "-"
        of = word == "xst" or (tokens.at(name).lower in _CROSS_STREETS and (word == "cross" or name > at + 1))
        of = of or (word == "cross" and tokens.at(name).text == ":" and not (at and tokens[at - 1].lower == "red"))
        name += of and word != "xst"
    else:
        of = tokens.at(name).lower in (_W.corners_of if word != "crossing" else ("of", "with"))
    name = tokens.past(name, _CORNER_FILLS, at + _MOST_FILLS - name)
    name += tokens.at(name).text == "." and word in _W.abbreviated_corners
    end = _name(tokens, name)
    bare = end is None and of and tokens.at(name + 1).lower in ("and", "&")
    if bare and tokens.at(name + 2).lower not in _W.function:
        return name + 3 if tokens.at(name).word and tokens[name].lower not in _W.function else None  # "of oak and elm"
    sure = of or word in _W.abbreviated_corners
    if end is None or not (sure or (word in _W.corners and not tokens[at].capital and not tokens.is_titled)):
        return None
    second = _name(tokens, end + 1) if tokens.at(end).lower in ("and", "&", "/", "at", "@", "with") else None
    return second or (end if of else None)


def _by_sign(tokens: TokenList, at: int) -> Span | None:
    """Find a crossing such as "5th & Main". Token `at` is the sign between the streets ("&", "/", "@" …).

    Return the range of tokens of the crossing, or None if there is no crossing. One of the streets may be only a name
    ("Main" without "Street").
    """
    before, end, name = street_before(tokens, at), street(tokens, at + 1), _name(tokens, at + 1)
    span = None
    if before is not None and name is not None:
        span = before, end or (at + 2 if tokens[name - 1].text.isupper() else name)  # for example: "5th & Main"
    elif at and tokens[at - 1].capital and (end is not None or is_ordinal(tokens.at(at + 1))):
        span = at - 1, end or at + 2  # for example: "Main & 5th"
    met = (end is not None and _meets(tokens, end)) or (name is not None and _meets(tokens, name))
    full = before is not None and end is not None and not is_ordinal(tokens[at - 1]) and not tokens[at - 1].digits
    if span is not None and (met or ((full or tokens[at].text != "-") and not _is_order(tokens, *span))):
        return span
    bare = _name_before(tokens, at)
    if bare == at:
        return None
    spaced = tokens[at - 1].end < tokens[at].start and tokens[at].end < tokens.at(at + 1).start
    placed = tokens[at].text == "@" or (bare > 0 and tokens[bare - 1].lower in _AT and tokens[at].text in "/+")
    if name is not None and (met or (spaced and placed)):
        return bare, name
    plural = _plural(tokens, at + 1)
    return None if plural is None else (bare, plural)


def _by_word(tokens: TokenList, at: int) -> Span | None:
    """Find a crossing whose streets are joined by a word ("and", "at", "near", "meets"), which is token `at`.

    Return the range of tokens of the crossing, or None if there is no crossing. One of the streets may be only a name
    ("5th and Main"). Both may be only names if another word says that they meet. "I-35 and US 290" is not a crossing:
    two numbered roads with "and" are usually a list of closed roads.
    """
    word, first, last = tokens[at].lower, at, at + 1
    before_joins = ("(", "-", "just") if word == "and" else ("(", "-", "just", ",")
    first -= first > 1 and tokens[first - 1].lower in before_joins
    last = tokens.past(last, _W.behind_joins, _MOST_FILLS - 1)
    if word in _W.directions and tokens.at(at + 1).lower == "to":
        return None  # a direction of travel: "Elm Street north to Oak Avenue"
    before, end = street_before(tokens, first), street(tokens, last)
    if word == "and" and has_any(tokens[max(first - _MOST_FILLS, 0) : first], _W.between):
        return None  # the limits of a stretch
    if before is not None and end is not None:
        roads = (word == "and" or word in _W.directions) and _are_routes(tokens, before, last)
        named = tokens[last].capital or tokens[end - 1].digits or tokens[last].digits or tokens[end - 1].lower in SMALL
        named = named or prefixed(tokens, last) is not None
        quarters = word == "and" and {tokens[first - 1].lower, tokens[end - 1].lower} <= _W.quarters
        return (before, end) if named and (not (roads or quarters) or _meets(tokens, end)) else None
    if word in _W.bare_joins:
        return _with_bare_name(tokens, first, last, before, end)
    placed = first > 1 and tokens[first - 2].lower in _W.places and _is_bare(tokens, first - 1)
    near = placed and _is_sure_ordinal(tokens, last) and not _is_order(tokens, first - 1, last + 1)
    return (first - 1, last + 1) if near else None  # for example: "at Elm near 5th"


def _with_bare_name(tokens: TokenList, first: int, last: int, before: int | None, end: int | None) -> Span | None:
    """Find a crossing in which at least one street is only a name ("Main" without "Street").

    Return its range of tokens, or None if there is no crossing, or if it is too uncertain that both are streets. The
    words that join the streets are the tokens from `first` to the one before `last`. `before` is the index of the first
    token of a complete street before these words, and `end` that of the first token after a complete street that
    follows them; one or both are None.
    """
    bare, bare_behind = _name_before(tokens, first), _is_bare(tokens, last)
    if tokens[first - 1].ordinal and first > 1 and tokens[first - 2].lower in ("at", "near"):
        # For example: "at 3rd and pike".
        bare_behind = bare_behind or (tokens.at(last).word and tokens[last].lower not in _W.function)
    bare_before = bare < first
    lead = tokens[bare - 1].lower if bare else ""
    ordinal = _is_sure_ordinal(tokens, last) and not tokens.at(last + 1).capital
    if before is not None and (bare_behind or ordinal) and not _is_order(tokens, before, last + 1):
        sure = _is_sure_ordinal(tokens, first - 1) or _is_sure(tokens, before, first)
        placed = before > 0 and tokens[before - 1].lower in _W.places and tokens[first].lower == "and"
        placed = placed and tokens[first - 1].lower not in _W.quarters  # for example: "at FM 1960 and Elm"
        if sure or placed or tokens[last - 1].lower == "x":
            return before, last + 1
    if (bare_before or before is not None) and (plural := _plural(tokens, last)) is not None:
        return (bare if before is None else before), plural
    if not bare_before or before is not None:
        return None
    if (ordinal or tokens.at(last).ordinal) and not _is_order(tokens, first, last + 1):
        return bare, end or last + 1  # for example: "Main and 5th"
    name = _name(tokens, last)
    if bare_behind and name is not None and not _is_water(tokens[bare:name]):
        crossed = tokens[last - 1].lower in _W.meets or tokens[last - 1].text == "x"
        if crossed or _meets(tokens, name):
            return bare, end or name
    if name is not None and first > 1 and _is_directed(tokens, first - 1) and _is_directed(tokens, name - 1):
        return bare, name  # for example: "N. Clark and W. Division"
    if end is None or not bare or lead in ".!?:":
        return None
    placed = lead in _W.places and tokens[end - 1].lower not in _W.quarters
    joined = tokens[first].lower != "at" or lead in ("of", "on")
    sure = placed or tokens[first].lower == "x" or _is_sure(tokens, last, end)
    return (bare, end) if joined and sure else None


def _name_before(tokens: TokenList, at: int) -> int:
    """Find a street that is only a name ("Elm") and ends just before token `at`.

    Return the index of its first token, or `at` if there is no such name. If the name is in capitals, only its last
    word counts, because the words before it may not belong to it.
    """
    last = at - 2 if at > 1 and tokens[at - 1].text == "." and tokens[at - 2].lower in ("jr", "sr") else at - 1
    if last < 0 or not _is_bare(tokens, last):
        return at
    start = last
    while not tokens[last].text.isupper() and start > max(last - _LONGEST_NAME, 0) and _is_bare(tokens, start - 1):
        start -= 1
    return start


def _is_directed(tokens: TokenList, at: int) -> bool:
    """Return whether the name at token `at` comes after a direction in letters, as in "N. Clark"."""
    letter = tokens[at - 1 - (tokens[at - 1].text == "." and at > 1)] if at else tokens[at]
    return _is_bare(tokens, at) and len(letter.text) < 3 and letter.capital and letter.lower in _W.directions


def _is_sure_ordinal(tokens: TokenList, at: int) -> bool:
    """Return whether token `at` is certainly an ordinal.

    An ordinal in words counts only after a word such as "at" if it is in capitals ("FIRST"), or if all longer words of
    the text begin with capitals.
    """
    token = tokens.at(at)
    placed = at > 0 and tokens[at - 1].lower in _W.places
    return token.ordinal or (is_ordinal(token) and (placed or not (tokens.is_titled or token.text.isupper())))


def _plural(tokens: TokenList, at: int) -> int | None:
    """Find a phrase such as "Pine Streets", with the suffix in the plural, that begins at token `at`.

    Return the index of the first token after it, or None if there is no such phrase.
    """
    for end in range(at, min(at + _LONGEST_NAME, len(tokens))):
        token = tokens[end]
        if end > at and token.lower in _W.plurals:
            return end + 1
        if not (token.capital or token.ordinal or token.text in ".-" or token.lower in _W.particles):
            return None
    return None


def _is_sure(tokens: TokenList, start: int, end: int) -> bool:
    """Return whether the tokens from `start` to the one before `end` certainly name a street.

    If they do, a name beside them must be a street as well.
    """
    if route(tokens, start) is not None:
        return False  # not certain enough: "Highway 50 at Echo Summit"
    suffix = {token.lower for token in tokens[start:end]} & _W.suffixes
    return bool(suffix - _W.common) or (not tokens.is_titled and bool(suffix & _W.plain))


def _is_bare(tokens: TokenList, at: int) -> bool:
    """Return whether token `at` may be the name of a street without its suffix ("Elm")."""
    return tokens.at(at).capital and tokens.at(at).lower not in _NOT_STREETS


def _meets(tokens: TokenList, end: int) -> bool:
    """Return whether a word right after two names says that these are streets that meet. It is expected at token `end`.

    Example: "the Oak St.-Main St. intersection".
    """
    end += tokens.at(end).text in ".,("
    end += tokens.at(end).lower in _W.directions
    return tokens.at(end).lower in _W.meetings or (not tokens[end - 1].capital and tokens[end - 1].lower in _W.meetings)
