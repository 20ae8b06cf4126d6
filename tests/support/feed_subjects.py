"""Subjects of the feed that nothing comes of, unless they are drawn without a geometry.

They have a module of their own, which imports little: the process that draws has to import it.
"""

import os
import time
from dataclasses import dataclass

from geocast.feed.picture import Picture, Subject


@dataclass(frozen=True, slots=True)
class Deadly(Subject):
    """A subject that ends the process that draws it, unless it is drawn without a geometry."""

    def draw(self) -> Picture:
        """End, or draw."""
        return Subject.draw(self) if self.plain else os._exit(1)


@dataclass(frozen=True, slots=True)
class Endless(Subject):
    """A subject that is never drawn, unless without a geometry."""

    def draw(self) -> Picture:
        """Wait, or draw."""
        if not self.plain:
            time.sleep(60)
        return Subject.draw(self)


@dataclass(frozen=True, slots=True)
class Impossible(Subject):
    """A subject that raises, unless it is drawn without a geometry."""

    def draw(self) -> Picture:
        """Raise, or draw."""
        return Subject.draw(self) if self.plain else 1 / 0
