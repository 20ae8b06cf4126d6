"""The states of an `accept` that waits for its answer."""

from support.state_table import read_state_table

from geocast.calls import pending_accept
from geocast.calls.pending_accept import NEXT, RELEASING, AcceptEvent, AcceptState


def test_state_table_in_docstring_equals_table_in_code():
    """A cell names the state after an event; a star says that the seat is released."""
    assert read_state_table(pending_accept, AcceptState, AcceptEvent) == (NEXT, RELEASING)
