"""Makes a site of the documents, with search, rules as anchors and diagrams: `make docs`.

    the repository's Markdown ──> staged, a page each ──> Sphinx, to whom every warning is an error ──> FOLDER/VERSION

The Markdown is written for people who read it in the repository. What a site wants otherwise is changed on the way:
links lead to pages, or to the file itself where it is none; a folder becomes a list of what is in it; a picture for
each theme, and rules that can be linked to. Other versions in FOLDER stay, and are listed.
"""

import html
import json
import os
import re
import sys
import tempfile
from functools import cached_property
from pathlib import Path

from pygments.lexers import find_lexer_class_by_name
from pygments.util import ClassNotFound
from sphinx.cmd.build import main as sphinx

import geocast

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MERMAID = ROOT / "client_demo" / "web" / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
FOLDERS = ("bench", "client_demo", "docs")
NAVIGATION = {  # what is found and not named here comes last
    "Guide": [
        *(
            "docs",
            "glossary",
            "first-alert",
            "life-of-an-alert",
            "client",
            "publisher",
            "publishers",
            "areas",
            "languages",
            "cap",
            "feed",
        ),
        *("review-desk", "approvals", "calls", "push"),
        *("client_demo", "client_demo/python", "client_demo/web/geocast", "client_demo/conformance", "comparison"),
    ],
    "Reference": [
        *("protocol", "approval-rules", "call-rules", "call-api", "cap-rules", "push-rules"),
        *("settings", "commands", "policy", "keys", "behaviour", "limits", "log", "metrics"),
    ],
    "Operations": [
        *("operations", "one-node", "several-nodes", "container", "deploy", "phones-that-sleep", "monitoring"),
        *("upgrades", "ledger", "threats", "privacy", "privacy-report"),
    ],
    "Background": [
        *("architecture", "no-queue-per-subscriber", "adr", "bench", "bench/method", "bench/tables", "bench/history"),
        "changelog",
    ],
}
RULES = (  # the pages of the rules
    *("protocol", "areas", "languages", "cap", "cap-rules", "feed", "calls", "call-rules", "call-api"),
    *("push", "push-rules", "publishers", "approval-rules", "ledger", "privacy", "threats", "limits"),
)
MOVED = HERE / "moved.json"  # by page: the headings that were cut from it, each with the page where it is now
_ID = "[A-Z]{1,3}[0-9]+[a-z]?"
_SHELF = re.compile("^(guide|reference|operations)/")  # not in addresses: a page that moves keeps its own
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_RULE = re.compile(rf"^\| ({_ID}) \|", re.MULTILINE)
_TITLED = re.compile(rf"^(?=#+ .*\(({_ID})\)$)", re.MULTILINE)  # a heading that ends with the id of its rule
_CITED = re.compile(rf"\[({_ID}(?:, {_ID})*)\](?!\()")
_FENCE = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img src="([^"]+)" alt="([^"]+)">\s*</picture>')


class Site:
    """The pages of the site: which file is which page, and what stands on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listed: set[str] = set()  # folders that somebody links to, and that have no README

    @cached_property
    def pages(self) -> dict[str, str]:
        """The name of the page that is made of a file, both as paths."""
        found = [*self.root.glob("*.md"), *(path for top in FOLDERS for path in self.root.glob(f"{top}/**/*.md"))]
        paths = (str(path.relative_to(self.root)) for path in sorted(found) if "node_modules" not in path.parts)
        return {path: _name(path) for path in paths}

    @cached_property
    def rules(self) -> dict[str, str]:
        """The page on which a rule stands."""
        paths = [path for path, name in self.pages.items() if name in RULES]
        texts = {self.pages[path]: (self.root / path).read_text("utf-8") for path in paths}
        return {rule: page for page, text in texts.items() for rule in _TITLED.findall(text) + _RULE.findall(text)}

    def page(self, path: str) -> str:
        """A file as the site wants it."""
        text = (self.root / path).read_text("utf-8")
        pieces, end = [], 0
        for fence in _FENCE.finditer(text):
            pieces += [self._prose(text[end : fence.start()], path), _code(fence[1], fence[2])]
            end = fence.end()
        return "".join([*pieces, self._prose(text[end:], path)])

    def _prose(self, text: str, path: str) -> str:
        text = _PICTURE.sub(lambda found: self._picture(path, *found.groups()), text)
        text = _LINK.sub(lambda found: f"]({self._target(path, found[1])})", text)
        if _name(path) in RULES:
            text = _RULE.sub(r'| <a id="\1" href="#\1">\1</a> |', text)
            text = _TITLED.sub(r'<a id="\1"></a>\n\n', text)
        up = "../" * (_name(path).count("/") + 1) if path != "README.md" else ""
        return _CITED.sub(lambda cited: f"[{re.sub(_ID, lambda rule: self._rule(rule[0], up), cited[1])}]", text)

    def _rule(self, rule: str, up: str) -> str:
        """A link to a rule, from a page that is so far down."""
        return f'<a href="{up}{self.rules.get(rule, RULES[0])}/#{rule}">{rule}</a>'

    def _target(self, path: str, target: str) -> str:
        """Where a link of a file leads on the site."""
        if re.match(r"[a-z]+:|#", target):
            return target
        file, _, heading = target.partition("#")
        there = os.path.normpath(os.path.join(os.path.dirname(path), file))
        page = self.pages.get(there) or self.pages.get(f"{there}/README.md")
        if page is None and (self.root / there).is_dir():
            self.listed.add(there)
            page = _name(there)
        return f"/{page}.md{'#' * bool(heading)}{heading}" if page else f"/repository/{there}"

    def _picture(self, path: str, dark: str, light: str, about: str) -> str:
        about = " ".join(about.split())
        return "\n\n".join(
            f"```{{image}} {self._target(path, source)}\n:alt: {about}\n:class: only-{theme}\n```"
            for theme, source in (("light", light), ("dark", dark))
        )

    def listing(self, folder: str) -> str:
        """A page for a folder that has none of its own: the pages in it, and the files."""
        names = sorted(path.name for path in (self.root / folder).iterdir() if path.is_file())
        pages = [f"/{self.pages[path]}" for path in (f"{folder}/{name}" for name in names) if path in self.pages]
        files = [f"- [{name}](/repository/{folder}/{name})" for name in names if f"{folder}/{name}" not in self.pages]
        return "\n".join([f"# {folder}", "", *files, "", *_toctree("", pages)])

    def navigation(self, names: set[str]) -> str:
        """What stands in the sidebar of every page."""
        listed = {self.pages[path] for path in self.pages if os.path.dirname(path) in self.listed}
        named = {name for group in NAVIGATION.values() for name in group}
        groups = {**NAVIGATION, "More": sorted(names - named - listed - {"index"})}
        lines = [
            _toctree(caption, [f"/{name}" for name in group if name in names]) for caption, group in groups.items()
        ]
        return "\n".join(["", *(line for each in lines for line in each)])

    def moved(self) -> dict[str, dict[str, str]]:
        """Return for each page that was split where its headings are now, and under "" where each rule is."""
        pages: dict[str, dict[str, str]] = json.loads(MOVED.read_text("utf-8"))
        return {"": self.rules, **pages}

    def stage(self, to: Path) -> None:
        """Write all pages into a folder, and what Sphinx needs beside them."""
        texts = {name: self.page(path) for path, name in self.pages.items()}
        texts |= {_name(folder): self.listing(folder) for folder in self.listed}
        texts["index"] += self.navigation(set(texts))
        for name, text in texts.items():
            file = to / f"{name}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        (to / "repository").symlink_to(self.root)


def _name(path: str) -> str:
    """The page of a file or folder."""
    name = path.removesuffix(".md").removesuffix("/README").removeprefix("docs/")
    name = _SHELF.sub("", name)
    return {"README": "index"}.get(name, name if "/" in name else name.lower())


def _toctree(caption: str, pages: list[str]) -> list[str]:
    options = [":hidden:", f":caption: {caption}"] if caption else []
    return ["```{toctree}", *options, "", *pages, "```"] if pages else []


def _code(language: str, text: str) -> str:
    if language == "mermaid":
        return f'<pre class="mermaid">\n{html.escape(text)}</pre>\n'
    try:
        find_lexer_class_by_name(language)
    except ClassNotFound:
        language = "text"
    return f"```{language}\n{text}```"


def list_versions(folder: Path) -> None:
    """Write which versions there are, the latest first, and lead to it who comes without one."""
    found = [path.parent.name for path in folder.glob("*/objects.inv")]
    found.sort(key=lambda name: [int(part) if part.isdigit() else -1 for part in re.split(r"[.+]", name)], reverse=True)
    (folder / "versions.json").write_text(json.dumps(found))
    (folder / "index.html").write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={found[0]}/">\n')


def main(folder: Path, root: Path = ROOT) -> int:
    """Build this version into a folder; the exit status."""
    if not MERMAID.exists():
        print(f"{MERMAID.relative_to(ROOT)} is missing: `make docs` installs it from npm", file=sys.stderr)
        return 1
    out = folder / geocast.__version__
    with tempfile.TemporaryDirectory() as staged:
        Site(root).stage(Path(staged))
        status = sphinx(
            [
                "-q",
                "-W",
                "--keep-going",
                "-E",
                "-b",
                "dirhtml",
                "-c",
                str(HERE),
                "-d",
                f"{staged}/.doctrees",
                staged,
                str(out),
            ]
        )
    if status == 0:
        (out / "_static" / MERMAID.name).write_bytes(MERMAID.read_bytes())
        (out / "_static" / "moved.json").write_text(json.dumps(Site(root).moved()))
        list_versions(folder)
        print(f"the site is in {folder}/: open {folder}/index.html, or run python3 -m http.server --directory {folder}")
    return status


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
