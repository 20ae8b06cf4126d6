"""The process that draws the alerts of the feed, and how the node talks to it (rule HD4).

    node, on its loop ── stdin: a PictureRequest ──> drawer: draws it, in up to 0.1 s of CPU
                     <── stdout: a Picture ─────────

A thread would not do: drawing is Python and numpy code, which holds the interpreter's lock. Each system call of the
event loop would then wait up to 5 ms for that lock, and a fan-out makes thousands of them. The drawer draws one request
at a time, and ends when its stdin is closed. Each message in either direction is a pickle after its length (4 bytes).
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

from ..errors import trace
from .picture import Picture, PictureRequest

logger = logging.getLogger(__name__)

START_S = 60.0  # limit for the drawer's start, which takes 1 s of CPU
PATIENCE_S = 20.0  # limit for drawing one alert, which takes up to 0.1 s of CPU
NICENESS = 10  # of the drawer: on a single core the node comes first
_SIZE = struct.Struct(">I")
_READY = b"."
_PROGRAM = "from geocast.feed.drawer import main; main()"


class Drawer:
    """The node's side of the drawer: starts the process when it is first needed, and again if it has ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __call__(self, subject: PictureRequest) -> Picture:
        """Return the picture for a request. Raise OSError if the drawer can't be started, or fails three times.

        If the drawer fails twice, the third attempt draws a picture without a geometry.
        """
        for each in (subject, subject, replace(subject, plain=True)):
            try:
                process = await self._running()
                async with asyncio.timeout(PATIENCE_S):
                    return await _asked(process, each)
            except (OSError, EOFError, RuntimeError) as error:  # ended (RuntimeError from uvloop), or took too long
                logger.error("the feed's drawer failed to draw an alert: %s", trace(error))
                await self.aclose()
        raise OSError("the feed's drawer failed three times")

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
        """End the drawer. The next request starts it again."""
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
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
    )


async def _asked(process: asyncio.subprocess.Process, subject: PictureRequest) -> Picture:
    assert process.stdin is not None
    assert process.stdout is not None
    asked = pickle.dumps(subject, pickle.HIGHEST_PROTOCOL)
    process.stdin.write(_SIZE.pack(len(asked)) + asked)
    await process.stdin.drain()
    [size] = _SIZE.unpack(await process.stdout.readexactly(_SIZE.size))
    picture: Picture = pickle.loads(await process.stdout.readexactly(size))  # noqa: S301 (our own process)
    return picture


def main() -> None:
    """Run as the drawer process, until stdin is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the node, but may be sent to all processes of its group
    os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request with its picture. If drawing raises an error, the picture has no geometry."""
    answers.write(_READY)
    answers.flush()
    while head := asked.read(_SIZE.size):
        subject: PictureRequest = pickle.loads(asked.read(*_SIZE.unpack(head)))  # noqa: S301 (the node itself)
        try:
            picture = subject.draw()
        except Exception as error:
            print(f"the feed shows an alert without geometry, because drawing failed: {trace(error)}", file=sys.stderr)
            picture = replace(subject, plain=True).draw()
        answer = pickle.dumps(picture, pickle.HIGHEST_PROTOCOL)
        answers.write(_SIZE.pack(len(answer)) + answer)
        answers.flush()
