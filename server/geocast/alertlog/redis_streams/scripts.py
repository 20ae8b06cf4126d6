"""The scripts in `lua/` that run in Redis, each with the prelude before it."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


def _script(name: str, flags: str = "") -> str:
    prelude, body = ((_FOLDER / f"{each}.lua").read_text("utf-8") for each in ("prelude", name))
    return f"#!lua{flags}\n{prelude}\n{body}"


# Each call sends the whole script with EVAL. This costs a few KB, but EVALSHA would need a second way for a server that
# does not know the script.
APPEND = _script("append")
BEAT = _script("beat")
HISTORY = _script("history", " flags=no-writes")
LIVE = _script("live", " flags=no-writes")
OPEN_CALLS = _script("open_calls", " flags=no-writes")
PURGE = _script("purge", " flags=allow-oom")
PURGE_PLACES = _script("purge_places", " flags=allow-oom")
