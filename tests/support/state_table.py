"""A reader of state tables in module docstrings."""

from enum import Enum
from types import ModuleType


def read_state_table(
    module: ModuleType, states: type[Enum], events: type[Enum]
) -> tuple[dict[Enum, dict[Enum, Enum]], set[tuple[Enum, Enum]]]:
    """Return the state after each state and event, and the pairs whose cell has a star."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in module.__doc__.splitlines() if "|" in line]
    (_, *heads), _, *body = rows
    table, starred = {}, set()
    for name, *cells in body:
        state = states[name.strip("`")]
        filled = {events(head): cell for head, cell in zip(heads, cells, strict=True) if cell}
        table[state] = {event: states[cell.split()[0].strip("`")] for event, cell in filled.items()}
        starred |= {(state, event) for event, cell in filled.items() if cell.endswith("*")}
    return table, starred
