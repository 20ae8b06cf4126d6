"""Firefox for Playwright: a program that starts Firefox and stands between it and Playwright's WebDriver BiDi.

Playwright sends a command that Debian's Firefox, a release with long support, does not know yet. This program answers
it, and passes everything else on. So a test can't choose the colour scheme; it stays light.

    python -m support.firefox PATH-OF-FIREFOX OPTION…
"""

import asyncio
import atexit
import json
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

LISTENING = re.compile(rb"(WebDriver BiDi listening on ws://127\.0\.0\.1:)(\d+)")
NOT_KNOWN = {"emulation.setMediaFeaturesOverride"}


def launch(playwright: Playwright, firefox: str, environment: dict[str, str], fonts: str) -> Browser:
    """Start Firefox, which needs a screen (DISPLAY) for its WebGL. Its sandbox may read the folder `fonts`."""
    folder = tempfile.mkdtemp(prefix="geocast-firefox-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return playwright.firefox.launch(
        channel="moz-firefox",
        executable_path=_make_program(Path(folder), firefox),
        env=environment,
        firefox_user_prefs={
            "webgl.force-enabled": True,
            "security.sandbox.content.read_path_whitelist": f"{fonts}/",
        },
    )


def fill(page: Page, selector: str, text: str) -> None:
    """Replace the text of a field. Over BiDi, Playwright's own `fill` leaves the old text of a number."""
    page.locator(selector).evaluate("field => { field.value = ''; }")
    page.locator(selector).fill(text)


def _make_program(folder: Path, firefox: str) -> Path:
    """Write the program that Playwright starts, and return its path."""
    program = folder / "firefox"
    tests = Path(__file__).resolve().parents[1]
    words = [sys.executable, "-m", "support.firefox", firefox]
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tests))} exec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    return program


async def main(*command: str) -> int:
    """Run Firefox until it ends; return its exit status."""
    firefox = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, limit=1 << 20)
    assert firefox.stderr
    async for line in firefox.stderr:
        if found := LISTENING.search(line):
            port = await _stand_between(int(found[2]))
            sys.stderr.buffer.write(LISTENING.sub(rb"\g<1>%d" % port, line))
        else:
            sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
    return await firefox.wait()


async def _stand_between(firefox_port: int) -> int:
    """Start to accept connections, and return the port."""

    async def relay(playwright: ServerConnection) -> None:
        address = f"ws://127.0.0.1:{firefox_port}{playwright.request.path if playwright.request else ''}"
        async with connect(address, max_size=None, proxy=None, compression=None) as firefox:

            async def back() -> None:
                async for message in firefox:
                    await playwright.send(message)
                await playwright.close()

            answers = asyncio.create_task(back())
            try:
                async for message in playwright:
                    command = json.loads(message)
                    if command["method"] in NOT_KNOWN:
                        await playwright.send(json.dumps({"type": "success", "id": command["id"], "result": {}}))
                    else:
                        await firefox.send(message)
            except ConnectionClosed:
                pass
            finally:
                answers.cancel()

    server = await serve(relay, "127.0.0.1", 0, max_size=None, compression=None)
    return int(next(iter(server.sockets)).getsockname()[1])


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
