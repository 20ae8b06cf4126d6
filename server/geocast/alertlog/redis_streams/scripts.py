"""The Lua scripts in `lua/`, which run in Redis. Each is sent together with `prelude.lua`."""

from functools import partial
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


def read_script(folder: Path, name: str, flags: str = "") -> str:
    """Return the source of the Lua script `name` in `folder`, preceded by the source of `prelude.lua`.

    `flags` are Redis' script flags, such as " flags=no-writes".
    """
    prelude, body = ((folder / f"{each}.lua").read_text("utf-8") for each in ("prelude", name))
    return f"#!lua{flags}\n{prelude}\n{body}"


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
