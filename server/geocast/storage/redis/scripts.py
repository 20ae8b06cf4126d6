"""Lua scripts, which run in Redis. Each is sent together with the file `prelude.lua` of its folder."""

from pathlib import Path


def read_script(folder: Path, name: str, flags: str = "") -> str:
    """Return the source of the Lua script `name` in `folder`, preceded by the source of `prelude.lua`.

    `flags` are Redis' script flags, such as " flags=no-writes".
    """
    prelude, body = ((folder / f"{each}.lua").read_text("utf-8") for each in ("prelude", name))
    return f"#!lua{flags}\n{prelude}\n{body}"
