"""Tests of the responder's program in a terminal: keys answer calls, and no place stays on the screen."""

import asyncio
import contextlib
import os
import pty
import re
import sys

import pytest
from click.testing import CliRunner
from support.fake_nodes import FakeNode

from client_demo.python.calls import CallChange, CallKind
from client_demo.python.times import format_time, wall_ms
from client_demo.terminal.cli import main
from client_demo.terminal.respond import call_line, change_line

ROOT = __file__.rpartition("/tests/")[0]
NEAR = {"type": "circle", "lat": 47.67825933515865, "lng": 8.830423174775438, "radius_m": 210.0}
PLACE = {"lat": 47.6780089, "lng": 8.8311129, "kind": "residence", "address": "Dorfstrasse 4", "access": "Code 4711"}
AEDS = [{"id": "node/1", "lat": 47.6772, "lng": 8.83, "where": "Mehrzweckhalle", "open": True, "code": "2580"}]
SECRET = re.compile(rb"Dorfstrasse|4711|2580|47\.678|8\.831")


def call(key="c", revision=1, **fields):
    times = {name: format_time(wall_ms() + ms) for name, ms in (("issued_at", 0), ("expires_at", 600_000))}
    texts = {"category": "cardiac_arrest", "title": "Cardiac arrest", "headline": "Adult, not breathing."}
    return {"id": key, "revision": revision, "status": "exercise", "near": NEAR, **texts, **times, **fields}


def task(key="c", revision=2):
    fields = {"seat": 2, "role": "aed", "place": PLACE, "aeds": AEDS, "fetch": 0, "status": "exercise"}
    return {"type": "task", "id": key, "revision": revision, **fields, "expires_at": format_time(wall_ms() + 600_000)}


async def heard(session, kind):
    while (message := await session.read())["type"] != kind:
        pass
    return message


@contextlib.asynccontextmanager
async def responding(node, stdin, stdout, *options):
    """Start the program on this node with these files as its standard input and output."""
    async with node.running() as url:
        command = [sys.executable, "-m", "client_demo", "respond", "--url", url, "--lat", "47.6772", "--lng", "8.83"]
        process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            cwd=ROOT,
            stdin=stdin,
            stdout=stdout,
            stderr=stdout,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )
        try:
            yield process
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def press(keys, key):
    keys.write(key.encode())


async def test_key_answers_the_task_or_the_nearest_call():
    """A key applies to the task, or else to the nearest call (rules M18, M19, M20); `q` ends the program."""
    said = []

    async def pressed(session, key, kind):
        """Press the key until the message arrives; an early key may come before its call is on the screen."""
        while True:
            process.stdin.write(key.encode())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if key == "d" else 2):
                    return await heard(session, kind)

    async def script(session):
        await session.welcome(quals=["cpr"])
        await session.send(type="call", call=call("far", near={**NEAR, "lat": 47.69}))
        await session.send(type="call", call=call())
        await heard(session, "ack")
        await heard(session, "ack")
        for key, kind in (("a", "accept"), ("e", "report"), ("d", "decline"), ("d", "decline"), ("o", "move")):
            said.append(await pressed(session, key, kind))
            if key == "a":
                await session.send(**task())
            if key == "d":
                await session.send(type="standdown", id=said[-1]["id"], reason="left")
        process.stdin.write(b"q")
        await session.stay()

    node = FakeNode(script)
    async with responding(node, asyncio.subprocess.PIPE, asyncio.subprocess.PIPE) as process:
        output, _ = await process.communicate()
    assert process.returncode == 0, output
    assert said[:2] == [{"type": "accept", "id": "c", "eta_s": 87}, {"type": "report", "id": "c", "state": "aed"}]
    assert [message["id"] for message in said[2:4]] == ["c", "far"]
    assert "here" not in said[4]["places"][0]
    assert b"[EXERCISE] Cardiac arrest: Adult, not breathing.  [c, revision 1, 122 m away]" in output
    assert b"c: seat 2, aed" in output
    assert not SECRET.search(output), "in a pipe a place would stay"


async def test_place_is_drawn_with_a_seat_and_erased_at_the_standdown():
    """Nothing of the place is on the terminal at the end (rule RU2)."""
    screen, drawn = bytearray(), asyncio.Event()
    ours, theirs = pty.openpty()

    async def script(session):
        await session.welcome(quals=["cpr"])
        await session.send(type="call", call=call())
        await heard(session, "ack")
        os.write(ours, b"a")
        await heard(session, "accept")
        await session.send(**task())
        await drawn.wait()
        del screen[:]
        await session.send(type="standdown", id="c", reason="over")
        await session.send(type="call", call=call("d"))
        await heard(session, "ack")
        os.write(ours, b"q")
        await session.stay()

    def read():
        with contextlib.suppress(OSError):
            screen.extend(os.read(ours, 65_536))
        if b"Code 4711" in screen and b"code 2580" in screen and b"Dorfstrasse 4" in screen:
            drawn.set()

    asyncio.get_running_loop().add_reader(ours, read)
    async with responding(FakeNode(script), theirs, theirs) as process:
        os.close(theirs)
    asyncio.get_running_loop().remove_reader(ours)
    os.close(ours)
    assert process.returncode == 0, screen
    _, _, after = bytes(screen).partition(b"(over)")
    assert after
    assert not SECRET.search(after)


@pytest.mark.parametrize("arguments", [("--lat", "91", "--lng", "0"), ("--lng", "0"), ("--lat", "1", "--lng", "nan")])
def test_invalid_place_is_refused(arguments):
    """The command prints one line and exits with 2."""
    result = CliRunner().invoke(main, ["respond", *arguments])
    assert result.exit_code == 2
    assert "Error:" in result.output


def test_line_has_no_place_and_plain_text():
    """The place is never printed as a line, and control codes are removed (rules RU2, C7)."""
    change = CallChange(CallKind.TASK, "c", call(), task())
    assert str(change_line(change, 12.0)) == "task           c: seat 2, aed"
    assert "\x1b" not in call_line(call(headline="\x1b[2J"))
    assert str(change_line(CallChange(CallKind.STANDDOWN, "c", None, None, "full"), None)) == "standdown      c (full)"
