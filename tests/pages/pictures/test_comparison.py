"""Tests of the comparison of pictures, with a drawn page: a bar, a panel, a line of text and a button."""

import importlib.util
from pathlib import Path

import pytest
from pages.pictures.comparison import SCALE, changed
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = (800, 600)
[LIBRARY] = importlib.util.find_spec("matplotlib").submodule_search_locations  # type: ignore[union-attr]
FONTS = Path(LIBRARY) / "mpl-data" / "fonts" / "ttf"
INK = (22, 32, 43)


def page(
    *, panel: tuple[int, int, int] = (255, 255, 255), left: int = 480, button: bool = True, text: str = "Alerts here",
    font: str = "DejaVuSans.ttf", ink: tuple[int, int, int] = INK, blur: float = 0,
) -> Image.Image:  # fmt: skip
    """Return a reduced picture of the page."""
    whole = Image.new("RGB", SIZE, (238, 241, 244))
    draw = ImageDraw.Draw(whole)
    draw.rectangle((0, 0, 800, 56), (255, 255, 255), (211, 218, 226))
    draw.rectangle((left, 57, 800, 600), panel, (211, 218, 226))
    for line in range(6):
        draw.text((left + 16, 80 + 24 * line), text, ink, ImageFont.truetype(FONTS / font, 15))
    if button:
        draw.rounded_rectangle((left + 16, 300, left + 140, 340), 8, panel, (125, 138, 153))
        draw.text((left + 36, 311), "Approve", ink, ImageFont.truetype(FONTS / font, 15))
    return whole.filter(ImageFilter.GaussianBlur(blur)).reduce(SCALE)


ALIKE = [
    *({}, {"blur": 0.8}, {"text": "Blocks hero"}, {"font": "DejaVuSerif.ttf"}),
    *({"ink": (40, 50, 60)}, {"panel": (250, 252, 255)}, {"left": 482}),
]
DIFFERENT = [
    *({"button": False}, {"left": 500}, {"panel": (232, 226, 210)}, {"ink": (225, 228, 232)}),
    {"text": "Alerts here Alerts here Alerts here"},
]


@pytest.mark.parametrize("other", ALIKE, ids=str)
def test_difference_of_letters_or_antialiasing_is_no_change(other: dict[str, object]) -> None:
    assert changed(page(), page(**other)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("other", DIFFERENT, ids=str)
def test_other_box_colour_or_length_of_text_is_a_change(other: dict[str, object]) -> None:
    assert changed(page(), page(**other)) is not None  # type: ignore[arg-type]


def test_place_of_a_change_is_given_in_pixels_of_the_page() -> None:
    left, top, right, bottom = changed(page(), page(button=False)) or (0, 0, 0, 0)
    assert 460 <= left < right <= 660
    assert 270 <= top < bottom <= 370


def test_picture_of_another_size_is_a_change() -> None:
    assert changed(page(), page().crop((0, 0, 100, 100))) == (0, 0, 400, 400)
