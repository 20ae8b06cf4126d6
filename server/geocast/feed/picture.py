"""What the feed shows of one alert, as bytes that its documents are put together from (rules PF1, PF4, PF5, HD4)."""

from dataclasses import dataclass

from ..model.alert import Cancel, Revision
from . import atom, cap, geojson


@dataclass(frozen=True, slots=True)
class Picture:
    """One revision of an alert, or its cancel, as it is shown until `ends_at`.

    `feature` is empty for a cancel. `message` is the CAP message, which `cap.complete` completes.
    """

    number: int
    issued_at: int
    ends_at: int
    feature: bytes
    entry: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """What is drawn: the last revision of an alert, its cancel if there is one, and who says it.

    `plain`: without a geometry, because nothing came of it with one.
    """

    revision: Revision
    cancel: Cancel | None
    site: atom.Site
    issuer: cap.Issuer
    plain: bool = False

    def draw(self) -> Picture:
        """Draw it. Takes up to 0.1 s of CPU."""
        revision, cancel = self.revision, self.cancel
        current = revision if cancel is None else cancel
        return Picture(
            current.revision,
            revision.issued_at if cancel is None else cancel.cancelled_at,
            revision.ends_at,
            geojson.feature(revision, plain=self.plain) if cancel is None else b"",
            atom.entry(revision, cancel, self.site),
            cap.draft(revision, cancel, self.issuer),
        )
