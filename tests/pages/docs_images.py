"""Renew docs/images/{map,desk}-{light,dark}.png and desk-live.png from running pages (`make images`).

The pages are those of a demo with its node, city and desk; nothing is staged for the pictures.
"""

import contextlib
import io
import tempfile
from pathlib import Path

from pages.conftest import ROOT, Served, Shown, launch, program
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = ROOT / "docs" / "images"
MAP, DESK = {"width": 1440, "height": 900}, {"width": 1360, "height": 860}
THEMES = ("light", "dark")
PATIENCE_S = 90


def main() -> None:
    """Run a demo and take the pictures."""
    if program() is None:
        raise SystemExit("no chromium: `make test` installs it where it may")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        demo = Served(folder, "demo", "--seconds", "60", "--port", "0", "--stay")
        stack.callback(demo.stop)
        browser = launch(stack.enter_context(sync_playwright()), stack)
        take_map(browser, demo.url("map"))
        take_desk(browser, demo.url("as desk-1"))
        browser.close()


def take_map(browser: Browser, url: str) -> None:
    """Take the map during a fan-out, in both themes."""
    shown = Shown(browser, url, viewport=MAP, color_scheme=THEMES[0])
    wait(shown, "document.querySelectorAll('.chip').length >= 9")
    for theme in THEMES:
        shown.page.emulate_media(color_scheme=theme)
        before = shown.text("#fan-out-told")
        wait(shown, f"document.querySelector('#fan-out-told').textContent !== {before!r}")
        shown.page.wait_for_timeout(700)  # the fan-out is lit and not yet fading
        keep(shown.page, f"map-{theme}")
    shown.context.close()


def take_desk(browser: Browser, link: str) -> None:
    """Take a fire ready to be approved, in both themes, and then live."""
    for theme in THEMES:
        shown = Shown(browser, link, viewport=DESK, color_scheme=theme)
        opened(shown)
        keep(shown.page, f"desk-{theme}")
        if theme == THEMES[-1]:
            shown.page.emulate_media(color_scheme="light")
            shown.page.click("#approve")
            wait(shown, "/[1-9]/.test(document.querySelector('#sent').textContent)")
            shown.page.fill("#headline", "Building on fire, crews are there. Keep windows closed and stay away.")
            may_approve(shown)
            keep(shown.page, "desk-live")
        shown.context.close()


def opened(shown: Shown) -> None:
    """Open the fire and wait until it can be approved."""
    shown.page.locator(".item", has_text="Structure fire").first.click()
    may_approve(shown)


def may_approve(shown: Shown) -> None:
    """Wait until the node would accept the form."""
    wait(shown, "!document.querySelector('#approve').disabled")


def wait(shown: Shown, expression: str) -> None:
    """Wait up to PATIENCE_S until the expression is true."""
    for _ in range(PATIENCE_S * 10):
        if shown.page.evaluate(expression):
            return
        shown.page.wait_for_timeout(100)
    raise SystemExit(f"waited {PATIENCE_S} s in vain for {expression}")


def keep(page: Page, name: str) -> None:
    """Write a picture with a palette: a third of the size, without a visible loss of colours."""
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    few = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{name}.png", optimize=True)
    print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
