"""The speed of the project's regular expressions: no text makes any of them slow.

A pattern that can split the same text in several ways may take time in proportion to the square or the cube of the
text's length. Somebody could then stop a process with one request. So each pattern is tried on difficult texts of
200,000 characters, made of the pattern's own words and repeated parts, within 3 s of CPU time. A linear pattern takes
a tenth of that or less, a quadratic one 20 s and more.
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
SHORT, LONG = 1_000, 200_000  # characters of the texts in the first and the second round
WORST = 4  # the second round uses the texts that took longest in the first round
CPU_S = 3.0
FUNCTIONS = ("compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn")

# Modules that build patterns at runtime. For each, the test covers the compiled constants, and one pattern that is
# built from difficult values, with the method that the module calls on it.
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

OF_OPERATORS = {"server/geocast/policy/rules.py"}  # patterns that operators write; the documents warn them


# ---- collecting all patterns -----------------------------------------------------------------------------------------


def python_files():
    """Return the project's modules."""
    found = (path for top in ("client_demo", "bench", "server/geocast") for path in (ROOT / top).rglob("*.py"))
    return sorted(path for path in found if "node_modules" not in path.parts)


def calls_of_re(path):
    """Yield (function, call, name of the constant or None) for each call of `re` in a file."""
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
    """Return the method of a compiled pattern that a module calls, or `search`, the slowest, if it calls several."""
    methods = set(re.findall(rf"\b{name}\.({'|'.join(FUNCTIONS[1:])})\b", text))
    return methods.pop() if len(methods) == 1 else "search"


def of_texts(pattern):
    """Return the same pattern for texts if it is a pattern for bytes."""
    is_text = isinstance(pattern.pattern, str)
    return pattern if is_text else re.compile(pattern.pattern.decode("latin-1"), pattern.flags | re.ASCII)


def python_patterns():
    """Yield (where, pattern, method) for every constant pattern and every pattern that a module has compiled."""
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
    """Yield the patterns of the web pages and client. They run in Python, as Node's engine cannot be interrupted."""
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


# ---- texts on which slow patterns take long --------------------------------------------------------------------------

SAMPLES = " a1-_.,:;/'\"<>=&#(\n"


def members(node):
    """Return the characters with which a part of a parsed pattern may begin, among SAMPLES and its own literals."""
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
    """Return the characters of an item of a character class, among SAMPLES and its own literals."""
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
    """Return the characters that a pattern may repeat many times."""
    if isinstance(node, tuple) and node and node[0] in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        _, most, part = node[1]
        return repeated(part, inside or most > 8)
    own = members(node) if inside and isinstance(node, tuple) and len(node) == 2 else set()
    parts = node if isinstance(node, list | tuple | _parser.SubPattern) else ()
    return own.union(*(repeated(part, inside) for part in parts))


def texts(pattern, length):
    """Yield the pattern's words and repeated parts in combinations that make a bad pattern try many possibilities."""
    source = re.sub(r"\\[A-Za-z]", " ", pattern.pattern)
    parts = (
        r"[A-Za-z]{2,}",
        r"[^\s\w\\]",
        r"[^\s()\[\]{}|*+?.^$\\]+",
    )  # words, punctuation, characters without a special meaning
    words = ["", *sorted({word for part in parts for word in re.findall(part, source)})]
    pumps = sorted(repeated(_parser.parse(pattern.pattern, pattern.flags)))[:16] or ["a"]
    pairs = ["".join(pair) for pair in itertools.permutations(pumps, 2)]
    for word, pump in [*itertools.product(words, pumps), *itertools.product([""], pairs)]:
        yield word + pump * (length // len(pump)) + "!"
    for word in words[1:]:
        yield f"{word} " * (length // (len(word) + 1)) + "!"
        yield f"{word}" * (length // len(word)) + "!"


def run(pattern, method, text):
    """Run the pattern as the project does. A search looks for all matches."""
    if method in ("match", "fullmatch"):
        getattr(pattern, method)(text)
    else:
        pattern.sub("", text)


def assert_is_fast(pattern, method, cpu_s=CPU_S):
    """Run the pattern on short texts, and then on long texts of the kinds that took longest."""
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
def test_regular_expression_takes_linear_time(where, pattern, method):
    del where
    assert_is_fast(pattern, method)


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
def test_slow_regular_expression_is_detected(source):
    """Patterns that this project once had, and worse ones, fail this test."""
    with pytest.raises(AssertionError, match="of CPU"):
        assert_is_fast(re.compile(source, re.IGNORECASE | re.DOTALL), "search", cpu_s=0.5)


def test_search_for_regular_expressions_finds_those_of_all_folders():
    """A change of the search must not lead to an empty list."""
    found = {where.partition(":")[0] for where, _, _ in ALL}
    assert {
        "client_demo/desk/redaction.py",
        "server/geocast/model/times.py",
        "client_demo/web/geocast/options.js",
    } <= found
    assert len(ALL) > 20
