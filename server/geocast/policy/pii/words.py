"""The sets of words in which tokens are looked up to find personal data, read from the file `english.toml`."""

import tomllib
from importlib import resources
from typing import TYPE_CHECKING

_TABLES = tomllib.loads(resources.files(__package__).joinpath("english.toml").read_text("utf-8"))


class WordSets:
    """The sets of words in one table of the file. Each set is an attribute with the name that it has in the file."""

    def __init__(self, table: str) -> None:
        for name, text in _TABLES[table].items():
            setattr(self, name, frozenset(text.split()))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> frozenset[str]: ...
