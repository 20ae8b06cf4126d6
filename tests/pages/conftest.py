"""Fixtures for page tests in a real browser without a GPU.

The browser is Chromium's headless shell, or what TEST_BROWSER names: `firefox`, which Playwright drives by WebDriver
BiDi, or `webkit` (support/webkit.py). Tests that need what only Chromium has are skipped there. The shell is Chromium
without the windows, which took a third of the CPU time of a page; it has no notifications either, so modules about them
set `NEEDS_NOTIFICATIONS = True` and get the whole Chromium.
"""

import atexit
import contextlib
import functools
import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.node import clean_environment
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page, Playwright, sync_playwright
from support import firefox, webkit
from support.screen import screen

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "client_demo" / "web" / "node_modules"
OUTPUT = ROOT / "test-output"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
BROWSER = os.environ.get("TEST_BROWSER", "chromium")
WHOLE_CHROMIUM = ("chromium", "chromium-browser")
PROGRAMS = {
    "chromium": ("chromium-headless-shell", *WHOLE_CHROMIUM),
    "firefox": ("firefox-esr", "firefox"),
    "webkit": (webkit.DRIVER,),
}
# What browsers report although a page is right. When Playwright takes a picture in Firefox, it adds the style `body {}`
# with this hash, which the policy of our pages refuses. Firefox reports a lost connection besides its request.
NOISE = (
    "GPU stall due to ReadPixels",
    "sha256-YjaKGiklmzC6wjXA513HAMmzus8VE61XCOT+SmwNZWA=",
    "Firefox can’t establish a connection",
    "was interrupted while the page was loading",
)
# SwiftShader draws only the maps. If it drew whole pages, too, it would take three times as much CPU time.
WITHOUT_GPU = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-compositing"]
# A page lives for seconds, so code that is optimized for its whole life costs more than it saves.
SHORT_LIVED = ["--js-flags=--no-opt --min-semi-space-size=32"]
# Draw 15 frames a second, as a slow phone does: without a GPU, the other frames took a fifth of the CPU time of a page.
FEWER_FRAMES = """
{
  const [request, cancel] = [requestAnimationFrame.bind(window), cancelAnimationFrame.bind(window)];
  const waiting = new Map(); // the frame that each callback waits for, by the id that the page knows
  let made = 0;
  const wait = (callback, id, frames) => {
    const later = () => wait(callback, id, frames - 1);
    const now = (time) => (waiting.delete(id), callback(time));
    waiting.set(id, request(frames ? later : now));
  };
  window.requestAnimationFrame = (callback) => (wait(callback, ++made, 3), made);
  window.cancelAnimationFrame = (id) => (cancel(waiting.get(id)), waiting.delete(id));
}
"""


def program(browser: str = BROWSER, is_whole: bool = False) -> str | None:
    """Return the path of a browser, or None; if `is_whole`, of one that has notifications."""
    names = WHOLE_CHROMIUM if is_whole and browser == "chromium" else PROGRAMS[browser]
    return next(filter(None, map(shutil.which, names)), None)


FONTS = """\
<fontconfig>
  <dir>{fonts}</dir>
  <cachedir>{cache}</cachedir>
  <alias binding="same"><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias binding="same"><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias binding="same"><family>serif</family><prefer><family>DejaVu Serif</family></prefer></alias>
  <alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


def font_folder() -> str:
    """Return the folder of the fonts that matplotlib brings."""
    [library] = importlib.util.find_spec("matplotlib").submodule_search_locations  # type: ignore[union-attr]
    return f"{library}/mpl-data/fonts/ttf"


@functools.cache
def fonts() -> str:
    """Return a configuration file with only the fonts that matplotlib brings, so that pages look alike everywhere."""
    folder = tempfile.mkdtemp(prefix="geocast-fonts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder) / "fonts.conf"
    file.write_text(FONTS.format(fonts=font_folder(), cache=folder))
    return str(file)


def only_chromium(reason: str) -> pytest.MarkDecorator:
    """Skip a test in other browsers, for a reason."""
    return pytest.mark.skipif(BROWSER != "chromium", reason=f"{BROWSER}: {reason}")


def launch(playwright: Playwright, stack: contextlib.ExitStack, is_whole: bool = False) -> Browser:
    """Start the browser; the stack ends what it needs besides. If `is_whole`, it has notifications."""
    environment = {**os.environ, "FONTCONFIG_FILE": fonts()}
    if BROWSER == "firefox":
        environment["DISPLAY"] = stack.enter_context(screen())
        return firefox.launch(playwright, str(program()), environment, font_folder())
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(
        executable_path=program(is_whole=is_whole), args=[*WITHOUT_GPU, *SHORT_LIVED, *sandbox], env=environment
    )


def missing(is_whole: bool = False) -> str | None:
    """Return the reason why page tests can't run here, or None if they can."""
    if not program(is_whole=is_whole) or (BROWSER != "chromium" and not shutil.which("Xvfb")):
        return f"no {BROWSER}, or no Xvfb for it (`make test` and `make checked` install them where they may)"
    if not MODULES.is_dir():
        return "no npm packages in client_demo/web (`make test` installs them where npm's index can be reached)"
    return None


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Return one browser for the tests of a module; each page has its own context.

    It does not last for the session, because Playwright runs an event loop in this thread, which other tests need.
    """
    is_whole = getattr(request.module, "NEEDS_NOTIFICATIONS", False)
    if lacks := missing(is_whole):
        pytest.skip(lacks)
    with contextlib.ExitStack() as stack:
        if BROWSER == "webkit":
            launched: Any = webkit.WebKit(stack.enter_context(screen()))
        else:
            launched = launch(stack.enter_context(sync_playwright()), stack, is_whole)
        stack.callback(launched.close)
        yield launched


def luminance(colour: tuple[int, ...]) -> float:
    """Return the relative luminance of a colour (WCAG 2.1)."""
    parts = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


class Shown:
    """A page in the browser and its errors: console messages, uncaught exceptions and failed requests.

    `script` runs before the page's own scripts; other options are those of a browser context.
    """

    def __init__(self, browser: Browser, url: str, script: str = "", **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, **context})
        self.context.set_default_timeout(PATIENCE * 1_000)
        self.page: Page = self.context.new_page()
        if BROWSER == "firefox":
            self.page.fill = functools.partial(firefox.fill, self.page)  # type: ignore[method-assign]
        self.page.add_init_script(FEWER_FRAMES + script)
        self.troubles: list[str] = []
        self.page.on("console", lambda message: self._judge(message.type, message.text))
        self.page.on("pageerror", lambda error: self._judge("uncaught", str(error)))
        self.page.on(
            "response", lambda answer: answer.status < 400 or self.troubles.append(f"{answer.status} for {answer.url}")
        )
        self.answer = self.page.goto(url)

    def _judge(self, kind: str, text: str) -> None:
        if kind in ("error", "warning", "uncaught") and not any(noise in text for noise in NOISE):
            self.troubles.append(f"{kind}: {text}")

    def until(self, expression: str, what: str) -> Any:
        """Wait until the JavaScript expression is true, and return its value."""
        try:
            return wait_until(lambda: self.page.evaluate(expression), what)
        except AssertionError:
            self.picture("failed")
            raise

    def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return self.page.locator(selector).inner_text()

    def has(self, selector: str, text: str) -> None:
        """Wait until the element shows this text."""
        wait_until(lambda: text in self.text(selector), lambda: f"{text!r} in {selector}: {self.text(selector)!r}")

    def has_not(self, selector: str, text: str) -> None:
        """Wait until the element does not show this text."""
        wait_until(lambda: text not in self.text(selector), f"{text!r} gone from {selector}")

    def box(self, selector: str) -> FloatRect:
        """Return the box of an element on the screen, once it is there and does not move."""
        seen: list[FloatRect | None] = [None]

        def at_rest() -> FloatRect | None:
            self.page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            seen.append(self.page.locator(selector).bounding_box())
            return seen[-1] if seen[-2] == seen[-1] else None

        return wait_until(at_rest, f"{selector} is on the screen")

    def contrast(self, selector: str) -> float:
        """Return the greatest contrast (WCAG) of a pixel in an element's box to the box's most frequent colour."""
        drawn = self.page.screenshot(clip=self.box(selector), animations="disabled")
        counted = Image.open(io.BytesIO(drawn)).convert("RGB").getcolors(1 << 24)
        ground = luminance(max(counted)[1])
        pairs = (sorted((ground, luminance(colour))) for _, colour in counted)
        return max((light + 0.05) / (dark + 0.05) for dark, light in pairs)

    def picture(self, name: str, **options: Any) -> None:
        """Save a screenshot."""
        OUTPUT.mkdir(exist_ok=True)
        self.page.screenshot(path=OUTPUT / f"{name}.png", animations="disabled", **options)

    def violations(self) -> list[str]:
        """Return the violations of WCAG 2.1 A and AA and of good practice that axe-core finds."""
        self.page.evaluate((MODULES / "axe-core" / "axe.min.js").read_text("utf-8"))
        # Finish all animations that have an end; otherwise axe-core would judge their intermediate colours. The
        # animation of an incoming call is endless.
        self.page.evaluate(
            "document.getAnimations()"
            ".filter(({ effect }) => effect.getComputedTiming().endTime < Infinity).forEach((each) => each.finish())"
        )
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {rule['help']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Shown]]:
    """Return `show(url, …)`, which opens a page.

    At the end no page may have errors, except those that the test removed.
    """
    opened: list[Shown] = []

    def showing(url: str, **context: Any) -> Shown:
        opened.append(Shown(browser, url, **context))
        return opened[-1]

    yield showing
    for each in opened:
        each.context.close()
    assert [trouble for each in opened for trouble in each.troubles] == []


class _Style(http.server.BaseHTTPRequestHandler):
    """A server of a map style on another origin, with an attribution to be shown."""

    def do_GET(self) -> None:
        source = {"type": "geojson", "data": {"type": "FeatureCollection", "features": []}}
        credit = (
            '<a href="https://maps.example/c" onclick="globalThis.hacked=1">&copy; Mappers</a> <img src=x> & friends'
        )
        layers = [{"id": "sea", "type": "background", "paint": {"background-color": "#456"}}]
        sources = {"streets": {**source, "attribution": credit}}
        body = json.dumps({"version": 8, "sources": sources, "layers": layers}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def style_url() -> Iterator[str]:
    """Return the URL of a map style with streets."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Style) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/style.json"
        server.shutdown()


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def files_served(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder on a port, or on any free port, and yield its address."""
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Served(ServerProcess):
    """A command of client_demo that serves a page until it is stopped; its output is in `folder`."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        super().__init__(folder / "served.txt")
        self.arguments, self.environment = arguments, environment
        self._read = 0
        self.start()

    def start(self) -> None:
        """Start the command."""
        environment = clean_environment(PYTHONUNBUFFERED="1", **self.environment)
        self.spawn(sys.executable, "-m", "client_demo", *self.arguments, environment=environment, folder=ROOT)

    def url(self, word: str) -> str:
        """Return the next address that the command prints after a word; what precedes it counts as read."""
        line = re.compile(rf"{word}: +(http://\S+).*\n")

        def printed() -> re.Match[str] | None:
            assert self.process
            has_ended = self.process.poll() is not None
            found = line.search(self.output(), self._read)
            assert found or not has_ended, f"it ended: {self.output()}"
            return found

        found: re.Match[str] = wait_until(printed, lambda: f"{word} and an address in: {self.output()}")
        self._read = found.end()
        return found[1]

    def stop(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Return `serve("map", …)`, which starts a command that ends with the module's tests."""
    started: list[Served] = []

    def serving(*arguments: str, **environment: str) -> Served:
        started.append(Served(tmp_path_factory.mktemp("served"), *arguments, **environment))
        return started[-1]

    yield serving
    for each in started:
        if each.process and each.process.poll() is None:
            each.stop()
