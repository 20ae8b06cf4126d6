"""The states of a push device."""

from support.state_table import read_state_table

from geocast.push import device_state
from geocast.push.device_state import NEXT, DeviceEvent, DeviceState


def test_state_table_in_docstring_equals_table_in_code():
    assert read_state_table(device_state, DeviceState, DeviceEvent) == (NEXT, set())


def test_every_state_is_reachable_and_can_end_in_gone():
    reached, ahead = set(), [DeviceState.IDLE]
    while ahead:
        state = ahead.pop()
        reached.add(state)
        ahead += [each for each in NEXT[state].values() if each not in reached]
    assert reached == set(DeviceState)
    for state in set(DeviceState) - {DeviceState.GONE}:
        assert DeviceEvent.LEAVE in NEXT[state] or NEXT[state] == {DeviceEvent.END: DeviceState.GONE}
