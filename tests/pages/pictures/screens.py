"""The accepted pictures of a page in all sizes and both themes, and the check of a page against them.

`accepted/NAME.webp` shows a state of a page: a column for each size, and the light theme above the dark one. It is a
quarter of the page's size (see `comparison`). `make pictures` accepts the pictures that differ, by running the tests
with GEOCAST_PICTURES=accept; then it also writes them at full size to test-output/pictures, for people to look at.
"""

import io
import os
from itertools import product
from pathlib import Path
from typing import Any

from pages.conftest import OUTPUT, Shown, luminance
from pages.pictures.comparison import SCALE, changed, difference
from PIL import Image

FOLDER = Path(__file__).parent
ACCEPTED = FOLDER / "accepted"
WRITTEN = OUTPUT / "pictures"
SIZES = ((390, 844), (768, 1024), (1280, 800), (1920, 1080))  # pixels
THEMES = ("light", "dark")
SCREENS = {390: 2, 768: 2, 1280: 1, 1920: 1}  # how much of a page is in the picture, in heights of the screen
GAP, GROUND = 4, (128, 128, 128)
LAYOUT, STILL, STEADY = ((FOLDER / name).read_text("utf-8") for name in ("layout.js", "still.js", "steady.js"))
DRAWN = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
PAINTED = """document.querySelectorAll("canvas").forEach((canvas) =>
    canvas.getContext("webgl2")?.readPixels(0, 0, 1, 1, 6408, 5121, new Uint8Array(4)))"""
AT_REST = """!document.querySelector("[data-idle=false], [data-lit=true]") &&
    [...document.querySelectorAll("canvas.maplibregl-canvas")].every((canvas) =>
        canvas.clientWidth === canvas.closest(".maplibregl-map").clientWidth)"""
ATTEMPTS = 12  # pictures of a page that still changes, until it stands still
STILL_TO = 2  # of 255: the greatest difference of two pictures of a page that stands still
LEAST_CONTRAST = 3.0  # of a control and its surroundings (WCAG 1.4.11)

Cell = tuple[tuple[int, int], str]  # size and theme
CELLS: list[Cell] = list(product(SIZES, THEMES))


def box_of(cell: Cell) -> tuple[int, int, int, int]:
    """Return the box of a picture in its sheet."""
    size, theme = cell
    widths = [-(-width // SCALE) for width, _ in SIZES]
    heights = [SCREENS[width] * height // SCALE for width, height in SIZES]
    column = SIZES.index(size)
    left = sum(widths[:column]) + GAP * column
    top = (max(heights) + GAP) * THEMES.index(theme)
    return left, top, left + widths[column], top + heights[column]


def accepted(name: str) -> dict[Cell, Image.Image]:
    """Return the accepted pictures of a state, or nothing if there are none."""
    file = ACCEPTED / f"{name}.webp"
    return read(file.read_bytes()) if file.exists() else {}


def accept(name: str, pictures: dict[Cell, Image.Image]) -> None:
    """Store the pictures of a state."""
    ACCEPTED.mkdir(exist_ok=True)
    (ACCEPTED / f"{name}.webp").write_bytes(written(pictures))


def written(pictures: dict[Cell, Image.Image]) -> bytes:
    """Return the file of pictures of a state."""
    corners = [box_of(cell)[2:] for cell in CELLS]
    sheet = Image.new("RGB", (max(x for x, _ in corners), max(y for _, y in corners)), GROUND)
    for cell, picture in pictures.items():
        sheet.paste(picture, box_of(cell)[:2])
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=75, method=6)
    return file.getvalue()


def read(file: bytes) -> dict[Cell, Image.Image]:
    """Return the pictures in a file that `written` returned. They have lost some colour."""
    with Image.open(io.BytesIO(file)) as sheet:
        whole = sheet.convert("RGB")
    return {cell: whole.crop(box_of(cell)) for cell in CELLS}


class Screens:
    """The check of the pages of a test; `findings` has what is wrong with them."""

    def __init__(self) -> None:
        self.is_accepting = os.environ.get("GEOCAST_PICTURES") == "accept"
        self.findings: list[str] = []

    def check(self, shown: Shown, name: str, *, root: str = "body") -> None:
        """Compare a page with the accepted pictures in all sizes and themes, and check its layout below `root`."""
        known, taken = accepted(name), {}
        for cell in CELLS:
            full, taken[cell] = shoot(shown, cell, known.get(cell))
            if self.is_accepting:
                WRITTEN.mkdir(parents=True, exist_ok=True)
                full.save(WRITTEN / f"{stem(name, cell)}.png")
            wrong = layout_findings(shown, cell, root, full)
            self.findings += [f"{name} {describe(cell)}: {each}" for each in wrong]
        new = read(written(taken))
        different = [cell for cell in CELLS if cell not in known or changed(known[cell], new[cell])]
        if self.is_accepting and different:
            accept(name, taken)
            print(f"accepted {name}: {', '.join(map(describe, different))}")
        elif different:
            self.findings += [report(name, cell, known.get(cell), new[cell]) for cell in different]

    def look(self, shown: Shown, name: str, cell: Cell) -> list[str]:
        """Return what is wrong with a page in one size and theme, and accept nothing."""
        old = accepted(name)[cell]
        full, taken = shoot(shown, cell, old)
        new = read(written({cell: taken}))[cell]
        different = [report(name, cell, old, new)] if changed(old, new) else []
        return [*different, *layout_findings(shown, cell, "body", full)]


def shoot(shown: Shown, cell: Cell, old: Image.Image | None) -> tuple[Image.Image, Image.Image]:
    """Return a picture of a page and the reduced picture.

    The picture is like `old` or, if the page does not become so, of a page that stands still.
    """
    (width, height), theme = cell
    shown.page.set_viewport_size({"width": width, "height": height})
    shown.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    before = None
    for _ in range(ATTEMPTS):
        full = screenshot(shown, width, height)
        new = full.reduce(SCALE)
        is_still = before is not None and difference(before, new).getextrema()[1] <= STILL_TO
        if is_still or (old is not None and not changed(old, new)):
            break
        before = new
    return full, new


def screenshot(shown: Shown, width: int, height: int) -> Image.Image:
    """Return a picture of the page, cut or filled up to a fixed height."""
    shown.page.evaluate(DRAWN)
    shown.until(AT_REST, "the map is drawn")
    shown.page.evaluate(PAINTED)  # waits until the GPU's process has done what the map has told it to do
    shown.page.evaluate(f"({STILL})()")
    options: dict[str, Any] = {"full_page": True} if SCREENS[width] > 1 else {}
    shot = shown.page.screenshot(animations="disabled", **options)
    shown.page.evaluate("pictured()")
    full = Image.new("RGB", (width, SCREENS[width] * height), GROUND)
    with Image.open(io.BytesIO(shot)) as taken:
        full.paste(taken.convert("RGB"))
    return full


def report(name: str, cell: Cell, old: Image.Image | None, new: Image.Image) -> str:
    """Write the old, the new and the difference picture, and return a sentence about them."""
    WRITTEN.mkdir(parents=True, exist_ok=True)
    path = WRITTEN / stem(name, cell)
    new.save(f"{path}.new.png")
    if old is None:
        return f"{name} {describe(cell)} has no accepted picture; `make pictures` accepts {path}.new.png"
    old.save(f"{path}.old.png")
    difference(old, new).point(lambda value: min(255, 8 * value)).resize(new.size).save(f"{path}.difference.png")
    left, top, right, bottom = changed(old, new) or (0, 0, 0, 0)
    return (
        f"{name} {describe(cell)} differs in the box from {left}, {top} to {right}, {bottom}: "
        f"see {path}.{{old,new,difference}}.png; `make pictures` accepts it"
    )


def stem(name: str, cell: Cell) -> str:
    """Return the name of the files about a picture."""
    (width, _), theme = cell
    return f"{name}-{width}-{theme}"


def describe(cell: Cell) -> str:
    """Return a size and theme in words."""
    (width, height), theme = cell
    return f"{width}×{height} {theme}"


def layout_findings(shown: Shown, cell: Cell, root: str, full: Image.Image) -> list[str]:
    """Return what is wrong with the layout (light theme only) and with the visibility of the controls."""
    found = shown.page.evaluate(f"({LAYOUT})({root!r})")
    faint = [name for name, *box in found["boxes"] if contrast(full.crop(tuple(map(round, box)))) < LEAST_CONTRAST]
    wrong = found["wrong"] if cell[1] == THEMES[0] else []
    return [*wrong, *(f"{name} can hardly be seen" for name in faint)]


def contrast(picture: Image.Image) -> float:
    """Return the contrast of the lightest and the darkest part of a picture, as WCAG defines it."""
    low, high = (luminance((grey,) * 3) for grey in picture.convert("L").getextrema())
    return (high + 0.05) / (low + 0.05)
