"""The process that draws the feed's pictures of alerts, and how the node communicates with it (rule HD4).

A *picture* has an alert's part of each document of the feed, as bytes.

    node, on its loop ── stdin: a PictureRequest ──> drawer: draws it, in up to 0.1 s of CPU
                     <── stdout: a Picture ─────────

A thread would not be enough: drawing runs Python and numpy code, which holds the interpreter's lock (GIL). Each system
call of the event loop would then wait up to 5 ms for the lock, and sending an alert to everybody makes thousands of
them. The drawer draws one request at a time, and ends when its stdin is closed. Each message, in both directions, is a
pickle after its length (4 bytes).
"""

import asyncio
import logging
import os
import pickle
import signal
import struct
import sys
from dataclasses import replace
from typing import BinaryIO

from ..model.errors import trace
from .picture import Picture, PictureRequest

logger = logging.getLogger(__name__)

START_S = 60.0  # the time limit for the drawer's start, which takes 1 s of CPU
PATIENCE_S = 20.0  # the time limit for drawing one alert, which takes up to 0.1 s of CPU
NICENESS = 10  # the drawer's lower priority: on a single core the node comes first
_SIZE = struct.Struct(">I")
_READY = b"."
_PROGRAM = "from geocast.feed.drawer import main; main()"
_ENDED = (OSError, EOFError, RuntimeError)  # raised if the process has ended (RuntimeError: by uvloop)


class Undrawable(Exception):  # noqa: N818 (the name describes the alert)
    """Raised if an alert can't be drawn, not even without a geometry."""


class Drawer:
    """Starts the drawer process when needed, sends requests for pictures to it, and restarts it if it has ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __call__(self, subject: PictureRequest) -> Picture:
        """Return the picture for a request.

        Raise OSError if the drawer process can't be started, and Undrawable if it can't draw this picture. After two
        failures, the third attempt asks for a picture without a geometry (an outline on the map), which may be what
        can't be drawn.
        """
        for each in (subject, subject, replace(subject, plain=True)):
            try:
                process = await self._running()
            except _ENDED as error:
                await self.aclose()
                raise OSError("the feed's drawing process can't be started") from error
            try:
                async with asyncio.timeout(PATIENCE_S):
                    picture = await _request_picture(process, each)
            except _ENDED as error:  # or it was too slow
                logger.error("the feed's drawing process failed and is started again: %s", trace(error))
                await self.aclose()
            else:
                if picture is None:
                    break
                return picture
        raise Undrawable

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is not None:
            await self.aclose()  # the drawer has ended since its last request
        process = self._process
        if process is None:
            process = self._process = await _started()
            assert process.stdout is not None
            async with asyncio.timeout(START_S):
                await process.stdout.readexactly(len(_READY))
        return process

    async def aclose(self) -> None:
        """End the drawer process. The next request starts it again."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _started() -> asyncio.subprocess.Process:
    path = os.pathsep.join(each for each in sys.path if each)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the node, also while this process starts
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
    )


async def _request_picture(process: asyncio.subprocess.Process, subject: PictureRequest) -> Picture | None:
    assert process.stdin is not None
    assert process.stdout is not None
    request = pickle.dumps(subject, pickle.HIGHEST_PROTOCOL)
    process.stdin.write(_SIZE.pack(len(request)) + request)
    await process.stdin.drain()
    [size] = _SIZE.unpack(await process.stdout.readexactly(_SIZE.size))
    picture: Picture | None = pickle.loads(await process.stdout.readexactly(size))  # noqa: S301 (our own process)
    return picture


def main() -> None:
    """Run as the drawer process until the node closes stdin, or has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the signals are for the node, but its whole group may receive them
    os.nice(NICENESS)
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(0)  # the node has ended; Python's own exit would try to write what is left


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Read requests from `asked`, and write a picture to `answers` for each request.

    If drawing a geometry (an alert's outline on the map) fails, the picture is made without one. If this fails, too,
    the answer is None.
    """
    answers.write(_READY)
    answers.flush()
    while request := _read(asked):
        subject: PictureRequest = pickle.loads(request)  # noqa: S301 (the node itself)
        answer = pickle.dumps(_drawn(subject), pickle.HIGHEST_PROTOCOL)
        answers.write(_SIZE.pack(len(answer)) + answer)
        answers.flush()


def _read(asked: BinaryIO) -> bytes | None:
    """Return the next request; None if there is none, or only its beginning, because the node has ended."""
    head = asked.read(_SIZE.size)
    [size] = _SIZE.unpack(head) if len(head) == _SIZE.size else [0]
    request = asked.read(size)
    return request if len(request) == size else None


def _drawn(subject: PictureRequest) -> Picture | None:
    for each in (subject, replace(subject, plain=True)):
        try:
            return each.draw()
        except Exception as error:
            without = "" if each.plain else " with its geometry"
            print(f"the feed can't draw an alert{without}: {trace(error)}", file=sys.stderr)
    return None
