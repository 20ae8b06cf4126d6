"""What runs in Redis: the scripts of `lua/`, each behind its prelude."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


def _script(name: str, flags: str = "") -> str:
    prelude, body = ((_FOLDER / f"{each}.lua").read_text("utf-8") for each in ("prelude", name))
    return f"#!lua{flags}\n{prelude}\n{body}"


# Each call sends its script whole. That costs a few KB, and saves a second way for a server that has forgotten them.
APPEND = _script("append")
BEAT = _script("beat")
HISTORY = _script("history", " flags=no-writes")
LIVE = _script("live", " flags=no-writes")
OPEN_CALLS = _script("open_calls", " flags=no-writes")
PURGE = _script("purge", " flags=allow-oom")
PURGE_PLACES = _script("purge_places", " flags=allow-oom")
