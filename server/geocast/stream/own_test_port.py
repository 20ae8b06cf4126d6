"""The interface through which sessions use own tests, without importing the policy that decides what they say."""

from typing import Protocol

from ..auth.tokens import Subject
from ..clock import Now
from ..model.alert import Revision

KEY_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"  # of the `id` with which a client asks; the alert's id has a prefix before it


class OwnTestMaker(Protocol):
    """Makes own tests: alerts that one session or push device has asked for. Counts them by subject (rule TR5)."""

    def wait_s(self, subject: Subject | None, now: Now) -> int:
        """Count one own test for a subject and return 0, unless the subject has had its share.

        Otherwise count nothing, and return the number of seconds to wait. A session without a token (in the mode
        `--dev`) has no subject and no share of its own: pass None.
        """
        ...

    def alert(self, key: str, place: tuple[float, float, float], now: Now) -> Revision:
        """Return an own test around a place: latitude and longitude in degrees, and reach in metres (rule TR2).

        `key` is the id with which the client has asked.
        """
        ...
