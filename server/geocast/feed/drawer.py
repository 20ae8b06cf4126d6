"""The process that draws the alerts of the feed, and how the node asks it to (rule HD4).

    node, on its loop ── stdin: a Subject ──> drawer: draws it, in up to 0.1 s of CPU
                     <── stdout: a Picture ──

A thread would not do: drawing is Python and numpy, which hold the interpreter's lock. Each system call of the loop
would then wait up to 5 ms for that lock, and a fan-out makes thousands. The drawer has one subject at a time, and ends
when its stdin does.
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

START_S = 60.0  # until the drawer is ready; it takes 1 s of CPU
PATIENCE_S = 20.0  # for one subject; it takes 0.1 s of CPU
NICENESS = 10  # of the drawer: the node comes first where there is one core
_SIZE = struct.Struct(">I")
_READY = b"."
_PROGRAM = "from geocast.feed.drawer import main; main()"


class Drawer:
    """The drawer as the node sees it: started when it is first asked, and again if it has ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __call__(self, subject: PictureRequest) -> Picture:
        """Return the subject's picture. Raises OSError if the drawer can't be started, or ends at everything.

        If the drawer fails twice at a subject, the picture has no geometry.
        """
        for each in (subject, subject, replace(subject, plain=True)):
            try:
                process = await self._running()
                async with asyncio.timeout(PATIENCE_S):
                    return await _asked(process, each)
            except (OSError, EOFError, RuntimeError) as error:  # it has ended (uvloop: RuntimeError), or takes too long
                logger.error("the feed's drawer failed at an alert: %s", trace(error))
                await self.aclose()
        raise OSError("the feed's drawer ends whatever it is asked")

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is not None:
            await self.aclose()  # it has ended since it was last asked
        process = self._process
        if process is None:
            process = self._process = await _started()
            assert process.stdout is not None
            async with asyncio.timeout(START_S):
                await process.stdout.readexactly(len(_READY))
        return process

    async def aclose(self) -> None:
        """End the drawer. It is started again if it is asked again."""
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
    """Run as the drawer, until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the node's, and may be sent to all its processes
    os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Draw each subject that is asked for. A subject that can't be drawn is drawn without a geometry."""
    answers.write(_READY)
    answers.flush()
    while head := asked.read(_SIZE.size):
        subject: PictureRequest = pickle.loads(asked.read(*_SIZE.unpack(head)))  # noqa: S301 (the node itself)
        try:
            picture = subject.draw()
        except Exception as error:
            print(f"an alert of the feed is shown without a geometry: {trace(error)}", file=sys.stderr)
            picture = replace(subject, plain=True).draw()
        answer = pickle.dumps(picture, pickle.HIGHEST_PROTOCOL)
        answers.write(_SIZE.pack(len(answer)) + answer)
        answers.flush()
