"""The sets of words in which tokens are looked up to find personal data, read from the file `english.toml`."""

import tomllib
from importlib import resources

_TABLES = tomllib.loads(resources.files(__package__).joinpath("english.toml").read_text("utf-8"))


def words(table: str) -> dict[str, frozenset[str]]:
    """Return the sets of words in one table of the file, as a dict from the name of each set to its words."""
    return {name: frozenset(text.split()) for name, text in _TABLES[table].items()}
