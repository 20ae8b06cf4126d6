"""One alert's parts of the feed's documents, as bytes (rules PF1, PF4, PF5, HD4)."""

from dataclasses import dataclass

from ..model.alert import Cancel, Revision
from . import atom, cap, geojson


@dataclass(frozen=True, slots=True)
class Picture:
    """The parts of the feed's documents that show one revision of an alert, or its cancel, until `ends_at`.

    Times are in ms since 1970. `number` is the number of the revision or cancel. `feature` is the GeoJSON feature, or
    the tombstone of a cancelled alert. `entry` is the Atom entry. `message` is the CAP message without its type and
    references, which `cap.complete` adds.
    """

    number: int
    issued_at: int
    ends_at: int
    feature: bytes
    entry: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """A request to draw a picture of an alert, with all data that drawing needs.

    `revision` is the last revision of the alert, and `cancel` its cancel, or None. `issuer` says who publishes the
    feed. If `plain` is true, the picture gets no geometry, because drawing one has failed.
    """

    revision: Revision
    cancel: Cancel | None
    issuer: cap.Issuer
    plain: bool = False

    def draw(self) -> Picture:
        """Draw the picture and return it. This takes up to 0.1 s of CPU."""
        revision, cancel = self.revision, self.cancel
        current = revision if cancel is None else cancel
        return Picture(
            current.revision,
            revision.issued_at if cancel is None else cancel.cancelled_at,
            revision.ends_at,
            geojson.feature(revision, plain=self.plain) if cancel is None else geojson.tombstone(cancel, revision),
            atom.entry(revision, cancel, self.issuer),
            cap.draft(revision, cancel, self.issuer),
        )
