"""The sets of words in which the finders of personal data look up tokens, read from `english.toml`."""

import tomllib
from importlib import resources

_TABLES = tomllib.loads(resources.files(__package__).joinpath("english.toml").read_text("utf-8"))


def words(table: str) -> dict[str, frozenset[str]]:
    """Return the sets of words in the table `table` of the file, by name."""
    return {name: frozenset(text.split()) for name, text in _TABLES[table].items()}
