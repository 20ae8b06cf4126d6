"""Steps of a person on the live map, and readings of the map."""

import io
from collections.abc import Callable

from end_to_end.kit.times import wait_until
from pages.conftest import Shown
from PIL import Image

HOME = (32.7767, -96.797)
INSIDE_M = 750  # metres from the centre, within the circle of an alert made by `publish`
AFFECTING, ELSEWHERE, STATUS = "#affecting", "#elsewhere", "#status"


def online(shown: Shown) -> Shown:
    """Wait until the page is connected."""
    shown.has(STATUS, "Live")
    return shown


def press_until(shown: Shown, key: str, is_there: Callable[[float, float], bool]) -> None:
    """Press a key until the marker is at a fitting place; fail if it goes past."""
    shown.page.locator("#you").focus()
    for _ in range(12):
        before = shown.text("#place")
        shown.page.keyboard.press(key)
        wait_until(lambda: shown.text("#place") != before, "the marker has moved")  # noqa: B023 (called at once)
        if is_there(*map(float, shown.text("#place").split(", "))):
            return
    raise AssertionError(f"the marker went past it, to {shown.text('#place')}")


def middle(shown: Shown, selector: str) -> tuple[float, float]:
    """Return the centre of an element on the screen."""
    box = shown.box(selector)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def colours(shown: Shown, spots: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return the colours of these pixels of the screen."""
    picture = Image.open(io.BytesIO(shown.page.screenshot(animations="disabled"))).convert("RGB")
    return [picture.getpixel(spot) for spot in spots]
