"""The states of a push device: the table of the documentation is the table of the code."""

from geocast.push import device_state
from geocast.push.device_state import NEXT, DeviceEvent, DeviceState


def test_table_of_states_says_what_the_code_does():
    """Each row of the table is a state, and each cell the state after an event."""
    rows = [line.strip("| ").split("|") for line in device_state.__doc__.splitlines() if line.startswith("| `")]
    heads = (
        next(line for line in device_state.__doc__.splitlines() if line.startswith("| state")).strip("| ").split("|")
    )
    events = [DeviceEvent(head.strip()) for head in heads[1:]]
    table = {}
    for state, *cells in ([cell.strip().strip("`") for cell in row] for row in rows):
        after = zip(events, cells + [""] * (len(events) - len(cells)), strict=True)
        table[DeviceState[state]] = {event: DeviceState[cell] for event, cell in after if cell}
    assert table == NEXT


def test_each_state_can_be_reached_and_ends_in_gone():
    """No state is a trap: from each one a device can leave."""
    reached, ahead = set(), [DeviceState.IDLE]
    while ahead:
        state = ahead.pop()
        reached.add(state)
        ahead += [each for each in NEXT[state].values() if each not in reached]
    assert reached == set(DeviceState)
    for state in set(DeviceState) - {DeviceState.GONE}:
        assert DeviceEvent.LEAVE in NEXT[state] or NEXT[state] == {DeviceEvent.END: DeviceState.GONE}
