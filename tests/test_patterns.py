"""No text makes a regular expression of the project slow: each one is fed its worst, under a limit of CPU time.

A pattern that can split the same text in several ways takes the square or the cube of its length. Such a pattern on a
text of others is a way to stop a process with one request. So what is asked of each is that it takes time in proportion
to the text: 200,000 characters, made of the pattern's own words and repeated parts, in 3 s of CPU. What is linear takes
a tenth of that or less, what is quadratic 20 s and more.
"""

import ast
import importlib
import itertools
import re
import time
from pathlib import Path
from re import _constants as op
from re import _parser

import pytest
from support.cpu import cpu_limit

ROOT = Path(__file__).resolve().parents[1]
SHORT, LONG = 1_000, 200_000  # characters: to find a pattern's worst texts, and to judge by
WORST = 4  # so many of its texts are judged by
CPU_S = 3.0
FUNCTIONS = ("compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn")

# Modules that put patterns together: what they have compiled is looked at; and one that is made of values, of bad ones,
# with the method that is called of it.
MADE = {
    "client_demo/desk/redaction.py": (
        lambda redaction: redaction._anywhere(["a", "aa", "a a", "a a a", "aaaa", "- -", "1" * 400]),
        "search",
    ),
    "client_demo/desk/feed_format.py": (
        lambda feed_format: feed_format._pattern("*a*a?a*[a-z]a*" + "a*" * 20 + "b"),
        "match",
    ),
}

OF_OPERATORS = {"server/geocast/policy/rules.py"}  # patterns of an operator's own, who is told to write good ones


# ---- what there is ---------------------------------------------------------------------------------------------------


def python_files():
    """The project's modules."""
    found = (path for top in ("client_demo", "bench", "server/geocast") for path in (ROOT / top).rglob("*.py"))
    return sorted(path for path in found if "node_modules" not in path.parts)


def calls_of_re(path):
    """(function, node of the pattern, the name it is assigned to at the top of the module) of each call in a file."""
    module = ast.parse(path.read_text("utf-8"))
    names = {
        id(node.value): target.id
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=function)) if function in FUNCTIONS:
                yield function, node, names.get(id(node))


def used_by(text, name):
    """The method of a compiled pattern that a module calls; `search`, which tries most, where several are called."""
    methods = set(re.findall(rf"\b{name}\.({'|'.join(FUNCTIONS[1:])})\b", text))
    return methods.pop() if len(methods) == 1 else "search"


def of_texts(pattern):
    """The same pattern of texts, if it is one of bytes."""
    is_text = isinstance(pattern.pattern, str)
    return pattern if is_text else re.compile(pattern.pattern.decode("latin-1"), pattern.flags | re.ASCII)


def python_patterns():
    """(where, pattern, method) of every one that is a constant; and of those that a module has compiled."""
    for path in python_files():
        where, text = str(path.relative_to(ROOT)), path.read_text("utf-8")
        for function, node, name in calls_of_re(path):
            if name is not None:
                module = importlib.import_module(where.removeprefix("server/").removesuffix(".py").replace("/", "."))
                yield f"{where}:{node.lineno}", of_texts(getattr(module, name)), used_by(text, name)
            elif isinstance(node.args[0], ast.Constant):
                yield f"{where}:{node.lineno}", of_texts(re.compile(node.args[0].value)), function
            elif where not in OF_OPERATORS:
                assert where in MADE, f"{where}:{node.lineno}: compile it at the top of the module, or list it here"
        if where in MADE:
            module = importlib.import_module(where.removesuffix(".py").replace("/", "."))
            make, method = MADE[where]
            yield f"{where}, of values", make(module), method
            for name, pattern in vars(module).items():
                if isinstance(pattern, re.Pattern):
                    yield f"{where}, {name}", pattern, "search"


def script_patterns():
    """Those of the pages and of the web client. Node's engine can't be interrupted; they are simple enough for this."""
    literal = re.compile(
        r"(?<=[(=,:&|!?\s])/(?![/* ])((?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+)/([gimsuy]*)(?=[.,;)\s])"
    )
    for path in sorted((ROOT / "client_demo" / "web").glob("*/*.js")):
        text = path.read_text("utf-8")
        assert "RegExp(" not in text, f"{path}: write it as a literal"
        for found in literal.finditer(text):
            flags = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE}
            pattern = re.compile(found[1], sum(flags.get(flag, 0) for flag in found[2]))
            yield f"{path.relative_to(ROOT)}:{text[: found.start()].count(chr(10)) + 1}", pattern, "search"


ALL = [*python_patterns(), *script_patterns()]


# ---- their worst -----------------------------------------------------------------------------------------------------

SAMPLES = " a1-_.,:;/'\"<>=&#(\n"


def members(node):
    """Characters that a part of a parsed pattern may begin with, as far as SAMPLES and its own literals go."""
    match node:
        case (op.LITERAL, code):
            return {chr(code)}
        case (op.NOT_LITERAL, code):
            return set(SAMPLES) - {chr(code)}
        case (op.ANY, _):
            return set(SAMPLES)
        case (op.IN, parts):
            own = set().union(*(part_of_class(part) for part in parts if part[0] is not op.NEGATE))
            return set(SAMPLES) - own if parts[0][0] is op.NEGATE else own
        case _:
            return set()


def part_of_class(part):
    """The same for an item of a character class."""
    kinds = {op.CATEGORY_DIGIT: r"\d", op.CATEGORY_WORD: r"\w", op.CATEGORY_SPACE: r"\s"}
    kinds |= {op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_NOT_WORD: r"\W", op.CATEGORY_NOT_SPACE: r"\S"}
    match part:
        case (op.LITERAL, code):
            return {chr(code)}
        case (op.RANGE, (low, high)):
            return {chr(low), *(each for each in SAMPLES if low <= ord(each) <= high)}
        case (op.CATEGORY, kind):
            return {each for each in SAMPLES if re.match(kinds[kind], each)}
        case _:
            return set()


def repeated(node, inside=False):
    """Characters that a pattern takes in any number."""
    if isinstance(node, tuple) and node and node[0] in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        _, most, part = node[1]
        return repeated(part, inside or most > 8)
    own = members(node) if inside and isinstance(node, tuple) and len(node) == 2 else set()
    parts = node if isinstance(node, list | tuple | _parser.SubPattern) else ()
    return own.union(*(repeated(part, inside) for part in parts))


def texts(pattern, length):
    """The pattern's words, and what it repeats, in the combinations that make a bad one try most."""
    source = re.sub(r"\\[A-Za-z]", " ", pattern.pattern)
    parts = (
        r"[A-Za-z]{2,}",
        r"[^\s\w\\]",
        r"[^\s()\[\]{}|*+?.^$\\]+",
    )  # words, punctuation, what has no special meaning
    words = ["", *sorted({word for part in parts for word in re.findall(part, source)})]
    pumps = sorted(repeated(_parser.parse(pattern.pattern, pattern.flags)))[:16] or ["a"]
    pairs = ["".join(pair) for pair in itertools.permutations(pumps, 2)]
    for word, pump in [*itertools.product(words, pumps), *itertools.product([""], pairs)]:
        yield word + pump * (length // len(pump)) + "!"
    for word in words[1:]:
        yield f"{word} " * (length // (len(word) + 1)) + "!"
        yield f"{word}" * (length // len(word)) + "!"


def run(pattern, method, text):
    """Use it as it is used; a search is for all that there is."""
    if method in ("match", "fullmatch"):
        getattr(pattern, method)(text)
    else:
        pattern.sub("", text)


def judge(pattern, method, cpu_s=CPU_S):
    """Feed it short texts, then the long ones of the kinds that took the longest."""
    taken = []
    with cpu_limit(2 * cpu_s):
        for number, text in enumerate(texts(pattern, SHORT)):
            began = time.thread_time()
            run(pattern, method, text)
            taken.append((time.thread_time() - began, number))
    worst = {number for _, number in sorted(taken)[-WORST:]}
    for number, text in enumerate(texts(pattern, LONG)):
        if number in worst:
            with cpu_limit(cpu_s):
                run(pattern, method, text)


@pytest.mark.parametrize(("where", "pattern", "method"), ALL, ids=[where for where, _, _ in ALL])
def test_no_text_makes_a_pattern_slow(where, pattern, method):
    """Time in proportion to the text."""
    del where
    judge(pattern, method)


@pytest.mark.parametrize(
    "source",
    [
        r"case[ ]*(?:no)?[ ]*[:#]?[ ]*\d",  # cubic
        r"^[^:]*: *| *-$",  # quadratic
        r"<[^>]*>",  # quadratic, where no > comes
        r"\b(?:\w+[ ]+)+street",  # exponential
        r"<a\s.*?</a>",
    ],
)
def test_a_slow_pattern_is_found(source):
    """The judge of these tests is judged: on patterns that this project once had, and on worse ones."""
    with pytest.raises(AssertionError, match="of CPU"):
        judge(re.compile(source, re.IGNORECASE | re.DOTALL), "search", cpu_s=0.5)


def test_all_of_them_are_looked_at():
    """So that a change of how they are found is not a change to none."""
    found = {where.partition(":")[0] for where, _, _ in ALL}
    assert {"client_demo/desk/redaction.py", "server/geocast/clock.py", "client_demo/web/geocast/options.js"} <= found
    assert len(ALL) > 20
