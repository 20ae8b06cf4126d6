"""The scripts in `lua/` that run in Redis, each with the prelude before it."""

from functools import partial
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


def read_script(folder: Path, name: str, flags: str = "") -> str:
    """Return the script of this name, behind the prelude of its folder."""
    prelude, body = ((folder / f"{each}.lua").read_text("utf-8") for each in ("prelude", name))
    return f"#!lua{flags}\n{prelude}\n{body}"


_script = partial(read_script, _FOLDER)


# Each call sends the whole script with EVAL. This costs a few KB, but EVALSHA would need a second way for a server that
# does not know the script.
APPEND = _script("append")
BEAT = _script("beat")
HISTORY = _script("history", " flags=no-writes")
LIVE = _script("live", " flags=no-writes")
OPEN_CALLS = _script("open_calls", " flags=no-writes")
PURGE = _script("purge", " flags=allow-oom")
PURGE_PLACES = _script("purge_places", " flags=allow-oom")
