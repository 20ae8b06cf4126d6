"""Subjects of the feed whose drawing fails, unless they are drawn without a geometry.

These classes have a module of their own with few imports, because the drawing process has to import them.
"""

import os
import time
from dataclasses import dataclass

from geocast.feed.picture import Picture, PictureRequest


@dataclass(frozen=True, slots=True)
class Deadly(PictureRequest):
    """A subject that ends the process that draws it, unless it is drawn without a geometry."""

    def draw(self) -> Picture:
        """End the process, or draw without a geometry."""
        return PictureRequest.draw(self) if self.plain else os._exit(1)


@dataclass(frozen=True, slots=True)
class Endless(PictureRequest):
    """A subject whose drawing takes too long, unless it is drawn without a geometry."""

    def draw(self) -> Picture:
        """Sleep for 60 s before drawing, or draw without a geometry at once."""
        if not self.plain:
            time.sleep(60)
        return PictureRequest.draw(self)


@dataclass(frozen=True, slots=True)
class Impossible(PictureRequest):
    """A subject that raises, unless it is drawn without a geometry."""

    def draw(self) -> Picture:
        """Raise, or draw without a geometry."""
        return PictureRequest.draw(self) if self.plain else 1 / 0
