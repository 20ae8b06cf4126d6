"""The table of what a session is owed."""

from geocast.calls import delivery
from geocast.calls.delivery import OWED, Has, Stands


def test_table_in_docstring_equals_table_in_code():
    """A cell names the message that is owed; a star says that there are further conditions."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in delivery.__doc__.splitlines() if "|" in line]
    (_, *heads), _, *body = rows
    told = {
        Has(name): {Stands(head): cell.strip("`* ") or None for head, cell in zip(heads, cells, strict=True)}
        for name, *cells in body
    }
    assert told == OWED
