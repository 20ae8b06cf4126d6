"""Tests of requirements/tag.sh (`make tag`), which tags a release with the version and the text of CHANGELOG.md."""

import subprocess
from pathlib import Path

import pytest

import geocast

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "requirements" / "tag.sh"
CHANGELOG = """# Changelog

## [Unreleased]

## [1.1.0] - 2031-05-01

### For operators
- A change.

## [1.0.0] - 2031-04-01
- The first release.
"""


class Repository:
    """A git repository with one commit, in which the script runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.changelog, package = home / "CHANGELOG.md", home / "server" / "geocast" / "__init__.py"
        package.parent.mkdir(parents=True)
        package.write_text('__version__ = "1.1.0"\n')
        self.changelog.write_text(CHANGELOG)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        """Run a git command, which must succeed, and return its output."""
        who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com", "-c", "tag.gpgSign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=self.home, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self) -> None:
        """Commit all files."""
        self.git("add", ".")
        self.git("-c", "commit.gpgSign=false", "commit", "--quiet", "--message", "A release")

    def tag(self) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        who = {"GIT_COMMITTER_NAME": "Somebody", "GIT_COMMITTER_EMAIL": "somebody@example.com", "PATH": "/usr/bin:/bin"}
        return subprocess.run(["sh", SCRIPT], cwd=self.home, env=who, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository that is ready to be tagged."""
    return Repository(tmp_path)


def test_version_that_this_tree_would_be_tagged_with_is_that_of_the_package() -> None:
    """The name of the tag comes from the heading of CHANGELOG.md."""
    done = subprocess.run(["sh", SCRIPT, "-n"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"v{geocast.__version__}\n"


def test_tag_is_annotated_with_its_part_of_the_changelog(repository: Repository) -> None:
    """The tag is at the commit that is checked out. A second call changes nothing."""
    assert repository.tag().stdout == "v1.1.0\n"
    text = "geocast 1.1.0\n\n### For operators\n- A change."
    assert repository.git("tag", "--list", "--format=%(objecttype) %(contents)").strip() == f"tag {text}"
    assert repository.git("rev-parse", "v1.1.0^{commit}") == repository.git("rev-parse", "HEAD")
    done = repository.tag()
    assert (done.returncode, done.stderr) == (1, "geocast: no tag was made: v1.1.0 exists already\n")


@pytest.mark.parametrize(
    ("before", "after", "committed", "reason"),
    [
        ("[1.1.0]", "[1.2.0]", True, "the newest release in CHANGELOG.md is '1.2.0', but the package is '1.1.0'"),
        ("ed]\n", "ed]\n- New.\n", True, "CHANGELOG.md has unreleased changes; move them to a release"),
        ("A change", "Another", False, "the working tree has changes; commit them first"),
    ],
)
def test_tree_that_is_not_the_release_is_not_tagged(
    repository: Repository, before: str, after: str, committed: bool, reason: str
) -> None:
    """The reason is given in one line."""
    repository.changelog.write_text(CHANGELOG.replace(before, after))
    if committed:
        repository.commit()
    done = repository.tag()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"geocast: no tag was made: {reason}\n")
    assert repository.git("tag") == ""
