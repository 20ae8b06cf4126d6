"""The script that builds a website of the documents, with search, an anchor for each rule, and diagrams (`make docs`).

    Markdown of the repository ──> one staged page for each file ──> Sphinx (a warning is an error) ──> FOLDER/VERSION

The Markdown is written for people who read it in the repository, so the staged pages differ from it. A link leads to a
page of the site or, if a file is no page, to the file itself. A link to a folder without a README leads to a list of
the files in it. Each picture is included once for the light theme and once for the dark one. Each rule gets an anchor.
Other versions that are in FOLDER are kept, and the site lists them.
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
FOLDERS = ("bench", "client_demo", "docs", "tests/specification")
NAVIGATION = {  # pages that are not named here come last
    "Start here": ["about", "first-alert", "life-of-an-alert", "faq", "comparison", "docs", "glossary"],
    "Guide": [
        *("client", "publisher", "publishers", "areas", "languages", "cap", "feed"),
        "home-assistant",
        *("review-desk", "approvals", "calls", "push"),
        *("client_demo", "client_demo/python", "client_demo/web/geocast", "client_demo/conformance"),
    ],
    "Reference": [
        *("protocol", "approval-rules", "call-rules", "call-api", "defibrillators"),
        *("cap-rules", "cap-categories", "push-rules"),
        *("settings", "commands", "policy", "keys", "behaviour", "limits", "log", "metrics"),
    ],
    "Operations": [
        *("operations", "one-node", "several-nodes", "container", "deploy", "phones-that-sleep", "monitoring"),
        *("upgrades", "ledger", "threats", "privacy", "privacy-report"),
    ],
    "Background": [
        *("architecture", "no-queue-per-subscriber", "adr", "bench", "bench/method", "bench/tables", "bench/history"),
        *("tests/specification", "changelog"),
    ],
}
RULES = (  # the pages that define rules
    *("protocol", "areas", "languages", "cap", "cap-rules", "feed", "calls", "call-rules", "call-api"),
    *("defibrillators", "cap-categories", "push", "push-rules", "publishers", "approval-rules", "ledger", "privacy"),
    *("threats", "limits"),
)
MOVED = HERE / "moved.json"  # by page: the headings that were moved away from it, each with its present page
_ID = "[A-Z]{1,3}[0-9]+[a-z]?"
_START = "\n## Start here\n"
_SHELF = re.compile("^(guide|reference|operations)/")  # left out of URLs, so that a page that moves keeps its URL
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_RULE = re.compile(rf"^\| ({_ID}) \|", re.MULTILINE)
_TITLED = re.compile(rf"^(?=#+ .*\(({_ID})\)$)", re.MULTILINE)  # a heading that ends with the id of its rule
_CITED = re.compile(rf"\[({_ID}(?:, {_ID})*)\](?!\()")
_GUIDE = re.compile(r"(?<=^## Guide)\n.*?(?=^## )", re.DOTALL | re.MULTILINE)  # what a reader wants, and what to read
_FENCE = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img src="([^"]+)" alt="([^"]+)">\s*</picture>')


class Site:
    """The pages of the site: which file becomes which page, and the content of each page."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listed: set[str] = set()  # folders without a README to which pages link

    @cached_property
    def pages(self) -> dict[str, str]:
        """The name of the page that is made from a file, by the path of the file. Both are relative paths."""
        found = [*self.root.glob("*.md"), *(path for top in FOLDERS for path in self.root.glob(f"{top}/**/*.md"))]
        paths = (str(path.relative_to(self.root)) for path in sorted(found) if "node_modules" not in path.parts)
        return {path: _name(path) for path in paths}

    @cached_property
    def rules(self) -> dict[str, str]:
        """The name of the page that defines a rule, by the id of the rule."""
        paths = [path for path, name in self.pages.items() if name in RULES]
        texts = {self.pages[path]: (self.root / path).read_text("utf-8") for path in paths}
        return {rule: page for page, text in texts.items() for rule in _TITLED.findall(text) + _RULE.findall(text)}

    def page(self, path: str) -> str:
        """Return the Markdown of a file, changed for the site."""
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
        """Return a link to a rule as HTML. `up` is the relative path from the current page to the root of the site."""
        return f'<a href="{up}{self.rules.get(rule, RULES[0])}/#{rule}">{rule}</a>'

    def _target(self, path: str, target: str) -> str:
        """Return the target on the site for the target of a link in a file."""
        if re.match(r"[a-z]+:", target):
            return target
        file, _, heading = target.partition("#")
        if not file:
            return f"#{self._heading(path, heading)}"
        there = os.path.normpath(os.path.join(os.path.dirname(path), file))
        page = self.pages.get(there) or self.pages.get(f"{there}/README.md")
        if page is None and (self.root / there).is_dir():
            self.listed.add(there)
            page = _name(there)
        if page is None:
            return f"/repository/{there}"
        source = there if there in self.pages else f"{there}/README.md"
        return f"/{page}.md#{self._heading(source, heading)}" if heading else f"/{page}.md"

    def _heading(self, path: str, anchor: str) -> str:
        """Return the anchor that Sphinx knows for an anchor in a file.

        Sphinx checks links only against the anchors that it makes from headings. So return the anchor of the heading
        that follows `<a id="...">`, where a heading was renamed and has kept its old anchor.
        """
        text = (self.root / path).read_text("utf-8") if path in self.pages else ""
        found = re.search(rf'^<a id="{re.escape(anchor)}"></a>\n(?:<a id=.*\n|\n)*#+ (.+)$', text, re.MULTILINE)
        return re.sub(r"[^\w\- ]", "", found[1].lower()).replace(" ", "-") if found else anchor

    def _picture(self, path: str, dark: str, light: str, about: str) -> str:
        about = " ".join(about.split())
        return "\n\n".join(
            f"```{{image}} {self._target(path, source)}\n:alt: {about}\n:class: only-{theme}\n```"
            for theme, source in (("light", light), ("dark", dark))
        )

    def listing(self, folder: str) -> str:
        """Return a page for a folder that has no README: a list of the pages and the files in the folder."""
        names = sorted(path.name for path in (self.root / folder).iterdir() if path.is_file())
        pages = [f"/{self.pages[path]}" for path in (f"{folder}/{name}" for name in names) if path in self.pages]
        files = [f"- [{name}](/repository/{folder}/{name})" for name in names if f"{folder}/{name}" not in self.pages]
        return "\n".join([f"# {folder}", "", *files, "", *_toctree("", pages)])

    def navigation(self, names: set[str]) -> str:
        """Return the table of contents that the sidebar of every page shows. `names` are the names of all pages."""
        listed = {self.pages[path] for path in self.pages if os.path.dirname(path) in self.listed}
        named = {name for group in NAVIGATION.values() for name in group}
        groups = {**NAVIGATION, "More": sorted(names - named - listed - {"index"})}
        lines = [
            _toctree(caption, [f"/{name}" for name in group if name in names]) for caption, group in groups.items()
        ]
        return "\n".join(["", *(line for each in lines for line in each)])

    def moved(self) -> dict[str, dict[str, str]]:
        """Return, for each page that was split, the page to which each of its headings has moved.

        Under the key "", return the page of each rule.
        """
        pages: dict[str, dict[str, str]] = json.loads(MOVED.read_text("utf-8"))
        return {"": self.rules, **pages}

    def stage(self, to: Path) -> None:
        """Write all pages to a folder, together with what else Sphinx needs there."""
        texts = {name: self.page(path) for path, name in self.pages.items()}
        texts |= {_name(folder): self.listing(folder) for folder in self.listed}
        introduction, chapter, rest = texts["index"].partition("\n## ")
        guide = _GUIDE.search(texts.get("docs", ""))
        start = _START + guide[0] if guide else ""
        texts["index"] = f"{introduction}{start}{chapter}{rest}{self.navigation(set(texts))}"
        for name, text in texts.items():
            file = to / f"{name}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        (to / "repository").symlink_to(self.root)


def _name(path: str) -> str:
    """Return the name of the page that is made from a file or a folder."""
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
    """Write a list of the versions in the folder, latest first, and a start page that redirects to the latest."""
    found = [path.parent.name for path in folder.glob("*/objects.inv")]
    found.sort(key=lambda name: [int(part) if part.isdigit() else -1 for part in re.split(r"[.+]", name)], reverse=True)
    (folder / "versions.json").write_text(json.dumps(found))
    icon = f'<link rel="icon" href="{found[0]}/_static/icon.svg">'
    start = f'<!doctype html>{icon}<meta http-equiv="refresh" content="0; url={found[0]}/">\n'
    (folder / "index.html").write_text(start)


def main(folder: Path, root: Path = ROOT) -> int:
    """Build the site of this version in a folder; return the exit status."""
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
