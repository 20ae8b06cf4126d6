"""Tests of the documentation site that `make docs` builds: complete, strict, and usable in a browser."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages.conftest import DESKTOP, MODULES, PHONE, ROOT, Shown, files_served
from pages.pictures.conftest import screens  # noqa: F401 (a fixture)
from pages.pictures.screens import Screens

import geocast

BUILD = ROOT / "docs" / "site" / "build.py"
MERMAID = MODULES / "@mermaid-js"
OLDER = "0.0.9"

pytestmark = pytest.mark.skipif(not MERMAID.is_dir(), reason="mermaid is not in client_demo/web/node_modules (npm)")


def build(*arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run the builder as `make docs` does."""
    return subprocess.run([sys.executable, BUILD, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this version of the site beside an older version."""
    folder = tmp_path_factory.mktemp("site")
    (folder / OLDER).mkdir()
    (folder / OLDER / "objects.inv").touch()
    done = build(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the site is in {folder}/" in done.stdout
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """Return the address of the served site."""
    with files_served(site) as address:
        yield address


def page(site: Path, name: str) -> str:
    """Return the HTML of a page of this version."""
    return (site / geocast.__version__ / name / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("protocol", {"R5a", "BA1", "L8"}),
        ("areas", {"A16"}),
        ("cap-rules", {"CP10", "HD9"}),
        ("feed", {"PF1"}),
        ("push-rules", {"WPR3"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_rule_of_the_documents_has_an_anchor(site: Path, name: str, some: set[str]):
    """Each id in a table or at the end of a heading has one anchor, such as `protocol/#R5a`."""
    rules = rules_of(name)
    assert some <= set(rules)
    assert re.findall(r'<a id="([A-Z]\w+)"', page(site, name)) == rules


def rules_of(name: str) -> list[str]:
    """Return the ids in the tables and headings of a document."""
    [path] = (ROOT / "docs").rglob(f"{name}.md")
    rule = r"[A-Z]{1,3}\d+[a-z]?"
    found = re.finditer(rf"^(?:\| ({rule}) \||#+ .*\(({rule})\)$)", path.read_text("utf-8"), re.MULTILINE)
    return [each[1] or each[2] for each in found]


def test_cited_rule_links_to_its_anchor(site: Path):
    rules = rules_of("protocol")
    cited = re.findall(r'<a href="\.\./protocol/#(\w+)">', page(site, "life-of-an-alert"))
    assert cited
    assert set(cited) <= set(rules)


def test_old_address_of_a_heading_redirects_to_the_new_page(show: Callable[..., Shown], url: str):
    """`calls/#RV1` and `operations/#the-proxy` have moved to other pages."""
    for old, new in (("calls/#RV1", "call-rules/#RV1"), ("operations/#the-proxy", "several-nodes/#the-proxy")):
        show(f"{url}/{geocast.__version__}/{old}").page.wait_for_url(f"**/{new}")


def test_every_document_is_in_the_navigation(site: Path):
    """The documents are README, ARCHITECTURE, CHANGELOG, docs, and those of the clients and the bench."""
    navigation = page(site, ".")
    for name in ("protocol", "settings", "deploy", "adr", "architecture", "bench", "changelog", "client_demo/python"):
        assert f'<a class="reference internal" href="{name}/">' in navigation, name
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT)).removesuffix(".md").removesuffix("/README").removeprefix("docs/")
        assert page(site, re.sub(r"^(guide|reference|operations)/", "", name))


def test_site_loads_nothing_from_elsewhere(site: Path):
    """Scripts, styles, fonts and images come from the site itself."""
    files = list(site.rglob("*.html"))
    assert len(files) > 20
    for file in files:
        loaded = re.findall(
            r'<(?:script|img|source|link)\b[^>]*?(?:src|href|srcset)="([^"]+)"', file.read_text("utf-8")
        )
        assert not [each for each in loaded if re.match(r"(\w+:)?//", each)]


def test_every_page_of_the_site_has_an_icon(site: Path):
    """The start page, which leads to the latest version, has one too."""
    for file in site.rglob("*.html"):
        icons = re.findall(r'<link rel="(?:shortcut )?icon" href="([^"?]+)', file.read_text("utf-8"))
        assert icons, file
        assert all(icon == "data:," or (file.parent / icon).is_file() for icon in icons)


def test_broken_link_fails_the_build_of_the_site(tmp_path: Path):
    """Links to pages, files and headings are checked, and each broken one is named."""
    (tmp_path / "docs").mkdir()
    links = "[a](docs/none.md) [b](none.py) [c](#nowhere) [d](docs/there.md#not-here) [e](docs/there.md#here)"
    (tmp_path / "README.md").write_text(f"# Top\n\n{links}\n")
    (tmp_path / "docs" / "there.md").write_text("# There\n\n## Here\n")
    done = build(tmp_path / "out", tmp_path)
    assert done.returncode != 0
    assert set(re.findall(r"none\.md|none\.py|nowhere|not-here", done.stderr)) == {
        *("none.md", "none.py", "nowhere", "not-here")
    }
    assert done.stderr.count("WARNING") == 4


def test_site_has_a_folder_for_each_version_and_leads_to_the_latest(site: Path):
    """Each has a folder; the list starts with the latest, and the top page leads there."""
    assert json.loads((site / "versions.json").read_text()) == [geocast.__version__, OLDER]
    assert f"url={geocast.__version__}/" in (site / "index.html").read_text()


def test_site_draws_diagrams_and_offers_versions_and_search_in_a_browser(show: Callable[..., Shown], url: str):
    """Diagrams are redrawn when the theme changes, other versions are offered, and the search finds pages."""
    shown = show(f"{url}/{geocast.__version__}/")
    shown.until("document.querySelector('pre.mermaid svg')", "the diagram is drawn")
    assert shown.page.locator(".versions option").all_inner_texts() == [geocast.__version__, OLDER]
    first = shown.page.inner_html("pre.mermaid")
    shown.page.emulate_media(color_scheme="dark")
    drawn = "document.querySelector('pre.mermaid:has(svg)')?.innerHTML"
    shown.until(f"![undefined, {json.dumps(first)}].includes({drawn})", "it is drawn in other colours")
    shown.picture("site-dark")
    shown.page.fill(".sidebar-search", "heartbeat")
    shown.page.press(".sidebar-search", "Enter")
    shown.until("document.querySelector('ul.search a[href*=behaviour]')", "a page is found")


SAMPLE = {  # a site whose contents do not change, unlike the documents
    "README.md": """# Sample

**A sample of a start page, which says in one sentence what the program is for.**

```mermaid
flowchart LR
    desk["review desk"] --> log[("log")] --> phone["phone"]
```

## A first command

```sh
make demo     # a node, subscribers, phones that sleep, a review desk, a live map and a call for help
```
""",
    "docs/README.md": """# Documents

## Guide

| you want to | read |
|---|---|
| receive alerts in an app, a page or a program | [a client](client.md) |
| know every option | [the settings](settings.md) |

## Reference

Settings.
""",
    "docs/client.md": "# A client\n\nA short page.\n",
    "docs/settings.md": """# Settings

| option | environment variable | default | meaning |
|---|---|---|---|
| `--allow-volatile-log` | `GEOCAST_ALLOW_VOLATILE_LOG` | off (`False`) | accept a server without an append-only file |
| `--feed HOST:PORT` | `GEOCAST_FEED` | none | where everybody can read alerts as GeoJSON, Atom and CAP |

| limit | value | what happens beyond it |
|---|---|---|
| places of a session | 16 | the message is refused, and the connection stays open |
""",
}


@pytest.fixture(scope="module")
def sample_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a small site."""
    root, folder = (tmp_path_factory.mktemp(name) for name in ("sample", "sample-site"))
    for name, text in SAMPLE.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    done = build(folder, root)
    assert (done.returncode, done.stderr) == (0, "")
    with files_served(folder) as address:
        yield f"{address}/{geocast.__version__}"


def test_site_looks_as_accepted(show: Callable[..., Shown], sample_url: str, screens: Screens):  # noqa: F811
    """The start page, which says where to begin, and a page with tables."""
    start = show(f"{sample_url}/")
    start.has("#start-here", "receive alerts in an app")
    start.until("document.querySelector('pre.mermaid svg')", "the diagram is drawn")
    screens.check(start, "site-start", root="article")
    screens.check(show(f"{sample_url}/settings/"), "site-settings", root="article")


def test_start_page_says_where_to_begin(site: Path):
    """The start page of the real site, whose documents have the table that it shows."""
    assert re.search('id="start-here".*?receive alerts in an app', page(site, "."), re.DOTALL)


def test_table_of_settings_shows_every_meaning_on_any_screen(show: Callable[..., Shown], url: str):
    """No cell is beside the screen; on a wide screen no table of settings scrolls sideways either."""
    shown = show(f"{url}/{geocast.__version__}/settings/", viewport=PHONE)
    cells = shown.page.locator("table.settings td:last-child")
    assert cells.count() > 20
    assert cells.first.get_attribute("data-column") == "meaning"
    for viewport in (PHONE, DESKTOP):
        shown.page.set_viewport_size(viewport)
        beside = "cells => cells.filter(cell => cell.getBoundingClientRect().right > innerWidth).length"
        assert cells.evaluate_all(beside) == 0
        wrappers = shown.page.locator(".table-wrapper:has(.settings)")
        assert wrappers.evaluate_all("all => all.filter(each => each.scrollWidth > each.clientWidth).length") == 0
