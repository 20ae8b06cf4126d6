"""Documents that cost a parser gigabytes or minutes, and a process that reads them with little memory.

`python hostile.py cap` or `python hostile.py feed` prints what became of each document, as JSON: its name, the answer,
and the seconds of CPU. The process may have MORE_BYTES more than before it begins.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MORE_BYTES = 64 * 1024 * 1024
MB = 1024 * 1024
_CAP = "urn:oasis:names:tc:emergency:cap:1.2"
_EDXL = "urn:oasis:names:tc:emergency:EDXL:DE:1.0"
_ATOM = "http://www.w3.org/2005/Atom"
_LONG = " ".join(f'xmlns:{"n" * 240}{n}="{"u" * 250}"' for n in range(60))


def spread(inside: str, namespaces: str = "") -> Iterator[str]:
    """Yield a message, an envelope and a feed with this in them."""
    yield f'<alert xmlns="{_CAP}" {namespaces}>{inside}</alert>'
    yield f'<EDXLDistribution xmlns="{_EDXL}" {namespaces}>{inside}</EDXLDistribution>'
    yield f'<feed xmlns="{_ATOM}" {namespaces}><entry>{inside}</entry></feed>'


# By name: what is in the document, and the namespaces that its root declares.
INSIDE: dict[str, Callable[[], tuple[str, ...]]] = {
    "long namespace": lambda: ("<b/>" * 49_000, f'xmlns:p="{"u" * MB}"'),
    "long namespace that is used": lambda: (f'<c xmlns="{"u" * MB}">{"<b/>" * 49_000}</c>',),
    "long namespace of attributes": lambda: ('<b p:c="1"/>' * 5_000, f'xmlns:p="{"u" * 400_000}"'),
    "long namespace in single quotes": lambda: (f"<c xmlns = '{'u' * MB}'>{'<b/>' * 49_000}</c>",),
    "long namespace after a comment and CDATA": lambda: (
        f'<!-- <c xmlns="" --><![CDATA[<c x=">]]><c a=">" xmlns="{"u" * MB}">{"<b/>" * 49_000}</c>',
    ),
    "long namespace of references": lambda: (f'<c xmlns="{"&#117;" * 200_000}">{"<b/>" * 49_000}</c>',),
    "long name": lambda: (f"<{'b' * MB}/>" + "<b/>" * 9,),
    "long name of an attribute": lambda: (f'<b {"b" * MB}="1"/>',),
    "30,000 namespaces": lambda: ("", " ".join(f'xmlns:n{n}="u"' for n in range(30_000))),
    "30,000 times the same namespace": lambda: ("", 'xmlns:n="u" ' * 30_000),
    "30,000 namespaces in each other": lambda: ("".join(f'<b xmlns:n{n}="u">' for n in range(30_000)),),
    "20,000 namespaces beside each other": lambda: ("".join(f'<b xmlns:n{n}="u"/>' for n in range(20_000)),),
    "300,000 names without a value": lambda: (f"<b{' xmlns' * 300_000}/>",),
    "namespaces that each message inherits": lambda: (f'<alert xmlns="{_CAP}"/>' * 9_000, _LONG),
    "messages in messages": lambda: (f'<alert xmlns="{_CAP}">' * 200 + "x" * 9_999 + "</alert>" * 200,),
    "deep": lambda: ("<b>" * 100_000,),
    "many elements": lambda: ("<b/>" * 500_000,),
    "many attributes": lambda: (("<b " + " ".join(f"a{n}=''" for n in range(64)) + "/>") * 3_000,),
    "many comments": lambda: ("<!---->" * 290_000,),
    "many instructions": lambda: ("<?b?>" * 390_000,),
    "undeclared prefixes": lambda: ("<p:b/>" * 300_000,),
    "wrong ends": lambda: ("<b></c>" * 290_000,),
    "unknown entities": lambda: ("&b;" * 600_000,),
    "references": lambda: ("<b>" + "&#65;" * 400_000 + "</b>",),
    "no end of a comment": lambda: ("<!-- " * 400_000,),
    "no end of an attribute": lambda: ('<b c="' * 300_000,),
    "one long text": lambda: (f"<title>{'x' * 2_000_000}</title><updated>{'1,' * 20_000}</updated>",),
}


def documents(kind: str) -> Iterator[tuple[str, bytes]]:
    """Yield each document in UTF-8, and some in UTF-16, with its name."""
    for name, inside in INSIDE.items():
        message, *feeds = spread(*inside())
        for text in [message] if kind == "cap" else feeds:
            yield name, text.encode()
    for name in ("long namespace that is used", "many elements"):
        yield f"{name} (UTF-16)", next(spread(*INSIDE[name]())).encode("utf-16")


def main(kind: str) -> None:
    """Read each document as a message or as a feed."""
    from geocast.ingest.cap.xml import parse
    from geocast.ingest.fetch.documents import Unreadable, entries_of
    from geocast.model.problems import Problem

    for name, body in documents(kind):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE_BYTES, resource.RLIM_INFINITY))
        before_s = time.process_time()
        try:
            if kind == "cap":
                parse(body)
            else:
                entries_of(body, None, "https://met.example/")
            answer = "read"
        except Problem as problem:
            answer = problem.detail
        except Unreadable as error:
            answer = error.reason
        except MemoryError:
            answer = "no memory"
        print(json.dumps([name, answer, time.process_time() - before_s]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
