"""Finds units in a text: which units of fire brigade, police and other services were sent, and how many.

It finds counts, before the word ("two engines") or after it ("units on scene: 4"). It also finds single units: a kind
with its number ("Engine 12"), a code ("E12"), or a call sign ("1-Adam-12"). Counts of people who are hurt ("two
firefighters were injured") and of dwellings ("200 units have no water") are not reported.

In all functions, `at` is the index of a token, and the *end* of something is the index of the first token after it.
"""

from collections.abc import Iterator

from .tokens import Span, Token, TokenList, has_any
from .words import WordSets

_W = WordSets("crews")
_SPOKEN, _PARTS_OF_NUMBERS = _W.numbers | _W.phonetic, _W.numbers | {"-"}
_COUNTABLE = (_W.people - {"police"}) | _W.counted
_STREETS = WordSets("streets")
_HYPHENED = _W.codes - {"a", "b", "c", "d", "m", "p", "u", "x"}  # without the letters of A-10, B-12, C-4 and M-25
_THINGS, _FEW = _W.people | _W.vehicles, _W.single | _W.services | _W.units
_SERVES = _W.services | _W.single | _W.vehicles
_CODE_LISTS = _W.codes | {",", "and", "or", "to", "through"}
_ONES = frozenset({"one", "single", "lone", "1", "additional", "another", "extra"})
_UNCOUNTED = frozenset({"people", "children", "men", "women"})  # for example: "rescue two people"
_LISTED = frozenset({",", "and", "&", "/", "+", "plus"})
_MAX_COUNT = 3  # the largest number of digits in a count
_MAX_NUMBER = 4  # the largest number of digits in a unit's number
_MOST_BETWEEN = 7  # the largest number of tokens from a count to its word: "two large search-and-rescue teams"
_MOST_LISTED = 12  # the largest number of units in one list
_NEAR = 8  # the number of tokens before and after a count that are examined


def units(tokens: TokenList) -> Iterator[Span]:
    """Yield each unit and each count of units in the text, as a range of tokens."""
    behind = 0
    for at in range(len(tokens)):
        if at >= behind and (end := _unit(tokens, at)) is not None:
            for first, behind in _list(tokens, at, end):
                yield first, behind


def _unit(tokens: TokenList, at: int) -> int | None:
    """Find a unit ("Engine 12"), or a count of units ("two engines"), that begins at token `at`.

    Return the index of the first token after it, or None if there is no unit or count.
    """
    token, before = tokens[at], tokens[at - 1].lower if at else ""
    end = _call_sign(tokens, at) if token.digits or token.lower in _SPOKEN else None
    joined = len(token.letters) == 1 and token.digits < _MAX_COUNT and tokens.at(at + 1).start == token.end
    # The next test excludes times and viruses.
    joined = joined and (at == 0 or tokens[at - 1].end < token.start) and tokens.at(at + 2).text != ":"
    if joined and 0 < tokens.at(at + 1).digits <= _MAX_COUNT and tokens.at(at + 1).number:
        return at + 2  # for example: "7A23"
    if end is None and (token.lower in _W.counts or token.lower in ("one", "single", "lone") or _is_number(token)):
        end = _grouped(tokens, at)
        if end is None and token.lower in _ONES:
            end = _one(tokens, at)
        if end is None and before not in _STREETS.months:
            end = _count(tokens, at)
    elif end is None and token.lower == "available" and before == "all":
        end = _count(tokens, at)
    elif end is None and (_is_unit(token) or _pair(tokens, at) in _W.paired_units):
        end = _named(tokens, at)
    if end is None and (token.lower in _COUNTABLE or (token.lower in _W.vehicles and before in _W.services)):
        end = _counted_behind(tokens, at)
    if end is None and token.text.isupper() and not (before == "the" and token.lower in _STREETS.roads):
        end = _code(tokens, at)
    return end


def _list(tokens: TokenList, start: int, end: int) -> list[Span]:
    """Return the units of a list such as "two engines, four trucks and a chief", as ranges of tokens.

    The first unit consists of the tokens from `start` to the one before `end`. A bare number is joined to the unit
    before it, as in "Engines 3 and 36".
    """
    found = [(start, end)]
    for _ in range(_MOST_LISTED):
        at = tokens.past(end, _LISTED, 2)
        more = _next_listed(tokens, at, tokens[end - 1]) if end < at < len(tokens) else None
        if more is None:
            break
        if tokens[more - 1].number and more == at + 1:
            found[-1] = found[-1][0], more  # for example: "Engines 3 and 36"
        else:
            found.append((at, more))
        end = more
    return found


def _next_listed(tokens: TokenList, at: int, last: Token) -> int | None:
    """Return the end of the next unit in a list of units such as "Engine 12, Ladder 5", or None.

    The end is the index of the first token after the unit; it is None if no unit begins at token `at`. `last` is the
    last token of the previous unit. Words that are too vague to count as a unit elsewhere may count as one in a list.
    """
    token = tokens[at]
    if token.lower in _W.counts or _is_number(token):
        bare = last.number and token.number and not (tokens.at(at + 1).word and tokens.at(at + 1).lower in _W.measures)
        return _count(tokens, at, service=True) or (at + 1 if bare and not tokens.at(at + 1).capital else None)
    if token.lower in ("a", "an", "one"):
        return _one(tokens, at)
    return _code(tokens, at, hyphened=_W.codes) or _unit(tokens, at)


def _is_number(token: Token) -> bool:
    return token.number and token.letters in ("", "x") and token.digits <= _MAX_COUNT


def _one(tokens: TokenList, at: int) -> int | None:
    """Find a phrase for one unit, such as "one ladder truck", that begins at token `at`.

    Return the index of the first token after it, or None if there is no such phrase. "One firefighter was hurt" is not
    found, because it does not say who was sent.
    """
    alone = tokens[at].lower in ("single", "lone") or (at > 0 and tokens[at - 1].lower in ("just", "only"))
    for end in range(at + 1, min(at + 5, len(tokens))):
        token = tokens[end]
        if alone and f"{token.lower}s".replace("ys", "ies") in _W.people:
            return None if _is_not_sent(tokens, at, end + 1) else end + 1  # for example: "only one deputy"
        if token.lower in _W.single and tokens.at(end + 1).lower not in _W.single | _THINGS | {"company"}:
            return end + 1
        service = tokens[end - 1].lower in _W.services
        if service and (token.lower == "company" or f"{token.lower}s" in _W.vehicles):
            return end + 1
        if not (token.word or token.text == "-") or token.lower in _W.stops:
            return None
    return None


def _count(tokens: TokenList, at: int, *, service: bool = False) -> int | None:
    """Find a count of units, such as "4 units" or "two police cars", that begins at token `at`.

    Return the index of the first token after it, or None if there is no count. `service`: whether a service, such as
    the police, was mentioned earlier.
    """
    if tokens[at].letters == "x" or tokens.at(at + 1).lower == "x":
        thing = at + 1 + (tokens.at(at + 1).lower == "x")
        while tokens.at(thing).lower in _W.services and tokens.at(thing + 1).lower in _SERVES:
            thing += 1
        if tokens.at(thing).lower in _FEW:
            return thing + 1  # for example: "2x patrol"
    for end in range(at + 1, min(at + 1 + _MOST_BETWEEN, len(tokens))):
        token = tokens[end]
        if token.lower in _W.people or (service and token.lower in _W.vehicles):
            last = end + 1 + (tokens.at(end + 1).lower in _THINGS)  # for example: "two police helicopters"
            return None if _is_not_sent(tokens, at, last) else last
        if token.lower in _W.vehicles and _are_sent(tokens, at, end + 1):
            return end + 1
        if token.lower in _W.bases and at > 1 and tokens[at - 1].lower == "from" and tokens[at - 2].lower in _W.people:
            return end + 1
        joined = token.lower == "and" and tokens[end - 1].text == "-"  # for example: "search-and-rescue teams"
        if not (token.word or token.text in "-+" or token.digits) or (token.lower in _W.stops and not joined):
            return None
        service = service or token.lower in _W.services
    return None


def _is_not_sent(tokens: TokenList, at: int, end: int) -> bool:
    """Return whether something other than sent units is counted: people who were hurt, dwellings or goods.

    The count consists of the tokens from `at` to the one before `end`.
    """
    before, behind = tokens[max(at - _NEAR, 0) : at], tokens[end : end + _NEAR]
    if has_any((*before[-2:], *behind[:3]), _W.harm):
        return True
    if tokens[end - 1].lower != "units" or has_any((*before, *behind), _W.comes | _W.agencies):
        return False
    return tokens.at(end).lower == "of" or has_any(tokens[max(at - _NEAR, 0) : end + _NEAR], _W.dwellings)


def _are_sent(tokens: TokenList, at: int, end: int) -> bool:
    """Return whether the counted cars were sent by a service: "officers in six cars", "two cars are on the way".

    The count consists of the tokens from `at` to the one before `end`.
    """
    if has_any(tokens[end : end + 4], _W.comes):
        return True
    before = tokens[max(at - _NEAR // 2, 0) : at]
    return has_any(before[-1:], _W.sends) and tokens.at(end).lower != "of" and has_any(before, _W.agencies)


def _grouped(tokens: TokenList, at: int) -> int | None:
    """Find a phrase such as "three-engine response" that begins at token `at`.

    Return the index of the first token after it, or None if there is no such phrase.
    """
    member = tokens.past(at + 1, _PARTS_OF_NUMBERS, 3)
    if member == at + 1 or tokens.at(member).lower not in _W.members:
        return None
    ends = (end for end in range(member + 1, member + 4) if tokens.at(end).lower in _W.groups)
    return next((end + 1 for end in ends), None)


def _counted_behind(tokens: TokenList, at: int) -> int | None:
    """Find a word with its count after it, such as "units on scene: 4" or "officers x3", that begins at token `at`.

    Return the index of the first token after the count, or None if there is no count.
    """
    end = tokens.past(at + 1, _W.states, _MOST_BETWEEN - 1)
    sign = tokens.at(end).text in ":(=-#" or tokens[end - 1].lower == "x"
    end += sign and tokens.at(end).text in ":(=-#"
    number = tokens.at(end)
    if has_any(tokens[end + 1 : end + 3], _W.harm) or tokens.at(end + 1).text == ":":
        return None
    if sign and (_is_number(number) or (number.lower in _W.numbers and not tokens.at(end + 1).word)):
        return end + 1 + (tokens.at(end + 1).text == ")")
    return None


def _call_sign(tokens: TokenList, at: int) -> int | None:
    """Find a call sign such as "1-Adam-12" or "Three Lincoln 40" that begins at token `at`.

    Return the index of the first token after it, or None if there is no call sign.
    """
    letter = at
    if _is_number(tokens[at]) or tokens[at].lower in _W.numbers:
        letter += 1 + (tokens.at(at + 1).text == "-")
    number = letter + 1 + (tokens.at(letter + 1).text == "-")
    joined = number == letter + 2 and tokens.at(letter).end == tokens.at(letter + 1).start
    sure = letter > at or (tokens.at(number).digits > 1 and (joined or tokens.at(number + 1).lower in _W.states))
    named = tokens.at(letter).lower in _W.phonetic and tokens.at(letter).capital
    return number + 1 if sure and named and _is_number(tokens.at(number)) else None


def _pair(tokens: TokenList, at: int) -> str:
    return f"{tokens[at].lower}-{tokens.at(at + 1).lower.removesuffix('s')}"


def _is_unit(token: Token) -> bool:
    return token.lower in _W.units or token.lower.removesuffix("s") in _W.units


def _leads_to_a_number(token: Token) -> bool:
    return token.lower.removesuffix("s") in _W.unit_fills or _is_unit(token)


def _named(tokens: TokenList, at: int) -> int | None:
    """Find a unit such as "Engine 12" or "Engine Twelve" that begins at token `at`.

    Return the index of the first token after it, or None if there is no such unit.
    """
    end = at + 1
    while end <= at + _MOST_BETWEEN and _leads_to_a_number(tokens.at(end)):
        end += 1
    number = tokens.at(end)
    if number.lower in _W.numbers:
        return _spelled(tokens, at, end)
    named = number.number and number.digits <= _MAX_NUMBER and tokens.at(end + 1).lower not in _W.measures
    return end + 1 if named else None


def _spelled(tokens: TokenList, at: int, end: int) -> int | None:
    """Find a unit such as "Engine Forty-Two", whose number is spelled out.

    The unit begins at token `at`, and its number at token `end`. Return the index of the first token after it; None if
    the number rather counts something else.
    """
    last = tokens.past(end, _PARTS_OF_NUMBERS, 3)
    behind = tokens.at(last)
    plural = behind.word and behind.lower.endswith("s") and len(behind.text) > 3
    counts = behind.lower in _W.measures | _UNCOUNTED | _W.single or plural
    sure = tokens[at].capital and tokens[end].capital and not tokens[end].text.isupper()
    return last if sure or not counts else None


def _code(tokens: TokenList, at: int, hyphened: frozenset[str] = _HYPHENED) -> int | None:
    """Find the code of a unit, such as "E12" or "E-12", that begins at token `at`.

    Return the index of the first token after it, or None if there is no code. A code has capital letters and a number,
    either joined or with a hyphen between them. `hyphened` has the letters that may be followed by a hyphen.
    """
    letters, hyphen = tokens[at], tokens.at(at + 1)
    if letters.lower not in _W.codes or not letters.text.isupper() or _is_labelled(tokens, at):
        return None
    end = at + 1 + (hyphen.text == "-" and hyphen.start == letters.end and letters.lower in hyphened)
    number, behind = tokens.at(end), tokens.at(end + 1)
    joined = number.start == tokens[end - 1].end and number.digits > 0 and not number.letters
    decimal = behind.text == "." and behind.start == number.end and tokens.at(end + 2).start == behind.end  # "M4.1"
    decimal = decimal and tokens.at(end + 2).digits > 0
    other = decimal or behind.lower in _W.behind_codes
    return end + 1 if joined and number.digits <= _MAX_NUMBER and not other else None


def _is_labelled(tokens: TokenList, at: int) -> bool:
    """Return whether a word before a code, or before a list of codes, shows that it is no unit's code: "Gate B12"."""
    if at > 0 and tokens[at - 1].text == "-" and tokens[at - 1].end == tokens[at].start:
        return at > 1 and tokens[at - 2].word and tokens[at - 2].end == tokens[at - 1].start  # as in "zone SFO-E12"
    first = at
    while first > max(at - _MOST_LISTED, 1) and (tokens[first - 1].digits or tokens[first - 1].lower in _CODE_LISTS):
        first -= 1
    return first > 0 and tokens[first - 1].lower.removesuffix("s") in _W.before_codes
