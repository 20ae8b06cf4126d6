"""The process that draws the feed's pictures of alerts, and how the node communicates with it (rule HD4).

A *picture* has an alert's part of each document of the feed, as bytes.

    node, on its loop ── stdin: a PictureRequest ──> drawer: draws it, in up to 0.1 s of CPU
                     <── stdout: a Picture ─────────

A thread would not be enough: drawing runs Python and numpy code, which holds the interpreter's lock (GIL). Each system
call of the event loop would then wait up to 5 ms for the lock, and sending an alert to everybody makes thousands of
them. The drawer draws one request at a time, and ends when its stdin is closed. After one byte that says that it is
ready, each message, in both directions, is a pickle after its length (4 bytes), as `multiprocessing` writes it.
"""

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import struct
import sys
from dataclasses import replace
from multiprocessing.connection import Connection

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
    os.write(sys.stdout.fileno(), _READY)
    serve(Connection(sys.stdin.fileno(), writable=False), Connection(sys.stdout.fileno(), readable=False))


def serve(asked: Connection, answers: Connection) -> None:
    """Read requests from `asked`, and write a picture to `answers` for each request, until the node has ended.

    If drawing a geometry (an alert's outline on the map) fails, the picture is made without one. If this fails, too,
    the answer is None.
    """
    with contextlib.suppress(EOFError, OSError):  # nobody asks any more, or not to the end, or nobody reads the answers
        while True:
            answers.send(_drawn(asked.recv()))


def _drawn(subject: PictureRequest) -> Picture | None:
    for each in (subject, replace(subject, plain=True)):
        try:
            return each.draw()
        except Exception as error:
            without = "" if each.plain else " with its geometry"
            print(f"the feed can't draw an alert{without}: {trace(error)}", file=sys.stderr)
    return None
