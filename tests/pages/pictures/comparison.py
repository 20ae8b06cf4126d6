"""A comparison of two reduced pictures of a page. It sees boxes and colours, and ignores letters and antialiasing.

Pictures are a quarter of the page's width and height. Both are blurred and divided into blocks. A block has changed if
the mean difference of one of its colour channels is more than TOLERANCE.
"""

from PIL import Image, ImageChops, ImageFilter

SCALE = 4  # pixels of the page for one pixel of a picture, in each direction
BLUR = 2  # pixels of a picture
BLOCK = 4  # pixels of a picture
TOLERANCE = 12  # of 255

Box = tuple[int, int, int, int]  # left, top, right, bottom


def difference(old: Image.Image, new: Image.Image) -> Image.Image:
    """Return a picture whose brightness is the mean difference of each block, in the channel that differs most."""
    blurred = [each.filter(ImageFilter.BoxBlur(BLUR)) for each in (old, new)]
    red, green, blue = (band.reduce(BLOCK) for band in ImageChops.difference(*blurred).split())
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def changed(old: Image.Image, new: Image.Image) -> Box | None:
    """Return the smallest box, in pixels of the page, that contains all changed blocks; None if there are none."""
    if old.size != new.size:
        return (0, 0, *(SCALE * side for side in new.size))
    box = difference(old, new).point(lambda value: 255 * (value > TOLERANCE)).getbbox()
    return box and tuple(SCALE * BLOCK * side for side in box)
