"""Functions that clean up a message's texts, and shorten them to a maximum length (rule CP21)."""

import re
from unicodedata import category

_DROPPED = frozenset({"Cc", "Cs", "Co", "Cn"})  # control, lone surrogate, private use, unassigned (rules L2, HD13)
_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")
_EMPTY_LINES = re.compile("\n{3,}")
_SENTENCE_END = re.compile("""[.!?。！？।]["'”’)\\]]?(?=\\s|$)|[。！？।]""")
CUT = "…"


def tidy(text: str) -> str:
    """Return the text without control characters, spaces at the ends of lines, and repeated empty lines."""
    text = _LINE_END.sub("\n", text).replace("\t", " ")
    text = "".join(each for each in text if each.isprintable() or each == "\n" or category(each) not in _DROPPED)
    return _EMPTY_LINES.sub("\n\n", "\n".join(line.strip() for line in text.split("\n"))).strip()


def one_line(text: str) -> str:
    """Return the text as a single line, with a single space between words."""
    return " ".join(tidy(text).split())


def cut(text: str, limit: int) -> str:
    """Return the text, shortened to at most `limit` characters.

    A text that is too long is cut after the last whole sentence that fits; or, if not even one sentence fits, after the
    last whole word. Then "…" is appended.
    """
    if len(text) <= limit:
        return text
    room = text[: limit - len(CUT)]
    sentences = [found.end() for found in _SENTENCE_END.finditer(text, 0, limit) if found.end() <= len(room)]
    if sentences:
        return room[: sentences[-1]] + CUT
    words = re.match(r"(?s).*\S(?=\s)", text[: len(room) + 1])
    return (words[0] if words else room) + CUT
