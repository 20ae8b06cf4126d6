"""The Lua scripts in `lua/`, which run in Redis. Each is sent together with `prelude.lua`."""

from functools import partial
from pathlib import Path

from ...storage.redis.scripts import read_script

_FOLDER = Path(__file__).parent / "lua"


_script = partial(read_script, _FOLDER)


# Each call sends the whole script with EVAL, a few KB. EVALSHA would send less, but would need a second code path for
# servers that do not know the script yet.
APPEND = _script("append")
BEAT = _script("beat")
HISTORY = _script("history", " flags=no-writes")
LIVE = _script("live", " flags=no-writes")
OPEN_CALLS = _script("open_calls", " flags=no-writes")
PURGE = _script("purge", " flags=allow-oom")
PURGE_PLACES = _script("purge_places", " flags=allow-oom")
