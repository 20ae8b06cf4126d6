"""The states of a push device, and the events that change them.

| state       | it starts a request | it waits  | it pauses | its request ends | it resumes | it leaves |
|-------------|---------------------|-----------|-----------|------------------|------------|-----------|
| `IDLE`      | `UNDER_WAY`         | `WAITING` | `PAUSED`  |                  | `IDLE`     | `GONE`    |
| `WAITING`   | `UNDER_WAY`         | `WAITING` | `PAUSED`  |                  | `IDLE`     | `GONE`    |
| `UNDER_WAY` |                     |           |           | `IDLE`           |            | `LEAVING` |
| `PAUSED`    |                     |           | `PAUSED`  |                  | `IDLE`     | `GONE`    |
| `LEAVING`   |                     |           |           | `GONE`           |            |           |
| `GONE`      |                     |           |           |                  |            |           |

An empty cell means that the event can't happen in that state. `tests/push/test_device_state.py` reads this table.
"""

from enum import Enum


class DeviceState(Enum):
    """The states of a push device. Each value describes its state in words."""

    IDLE = "has nothing to do; it may be sent the next alert"
    WAITING = "waits for a place at its host or for a slot"
    UNDER_WAY = "has a request under way"
    PAUSED = "is sent nothing for some time, after a failure"
    LEAVING = "has left this process; its last request is under way"
    GONE = "has left this process: it was forgotten, or another process has it"


class DeviceEvent(Enum):
    """The events that change the state of a device. Each value is a column heading of the module's table."""

    START = "it starts a request"
    WAIT = "it waits"
    PAUSE = "it pauses"
    END = "its request ends"
    RESUME = "it resumes"
    LEAVE = "it leaves"


_S, _E = DeviceState, DeviceEvent
_PAUSED = {_E.PAUSE: _S.PAUSED, _E.RESUME: _S.IDLE, _E.LEAVE: _S.GONE}
_FREE = _PAUSED | {_E.START: _S.UNDER_WAY, _E.WAIT: _S.WAITING}
NEXT: dict[DeviceState, dict[DeviceEvent, DeviceState]] = {
    _S.IDLE: _FREE,
    _S.WAITING: _FREE,
    _S.UNDER_WAY: {_E.END: _S.IDLE, _E.LEAVE: _S.LEAVING},
    _S.PAUSED: _PAUSED,
    _S.LEAVING: {_E.END: _S.GONE},
    _S.GONE: {},
}
