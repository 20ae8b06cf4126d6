"""jing, a validator of RELAX NG, reads the Atom feed (RFC 4287)."""

import re
import subprocess

from checked.tool import HERE, Tool

TOOL = Tool("jing", "the Atom feed, by a grammar of RFC 4287", debian=("jing",), commands=("jing",))
BROKEN = {  # what is replaced in the feed, and by what; each is against the RFC
    "feed without an id": (r"<id>[^<]*</id>", ""),
    "feed without an author": (r"<author>.*?</author>", ""),
    "entry without a title": (r"(<entry.*?)<title>[^<]*</title>", r"\1"),
    "entry with two ids": (r"(<entry[^>]*>)", r"\1<id>urn:twice</id>"),
    "entry without a link": (r"(<entry.*?)<link[^>]*/>", r"\1"),
    "date without a zone": (r"Z</updated>", "</updated>"),
    "entry before the metadata": (r"(<title>Alerts</title>)(.*?)(<entry.*?</entry>)", r"\3\1\2"),
    "link without an address": (r' href="[^"]*"', ""),
    "unknown element of Atom": (r"<summary>", "<remark/><summary>"),
}


def test_feed_is_valid_atom_and_broken_feeds_are_not(documents, tmp_path, record_property):
    """Each entry of the feed, and each way to break it, is a case. One run of jing reads all files."""
    feeds = {"feed": documents["atom"]}
    for name, (old, new) in BROKEN.items():
        feeds[name] = re.sub(old, new, documents["atom"], count=1, flags=re.DOTALL)
        assert feeds[name] != documents["atom"], name
    files = {name: tmp_path / f"{name}.xml" for name in feeds}
    for name, file in files.items():
        file.write_text(feeds[name], "utf-8")
    done = subprocess.run(
        ["jing", "-c", HERE / "atom.rnc", *files.values()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    errors = done.stdout.splitlines()
    wrong = {name for name, file in files.items() if any(error.startswith(f"{file}:") for error in errors)}
    assert wrong == set(BROKEN), done.stdout
    record_property("cases", feeds["feed"].count("<entry") + len(BROKEN))
