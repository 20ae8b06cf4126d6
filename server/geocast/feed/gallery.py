"""The pictures of all live alerts, each drawn once, in the order in which the alerts became live (rule HD4).

A *picture* has an alert's part of each document of the feed, as bytes. HTTP requests never draw a picture, or wait for
one. An alert is not in the feed until its picture is drawn. If the alert changes, the feed shows the earlier picture
until the next revision or the cancel is drawn. Changes of alerts that are in the feed are drawn before new alerts, so
that new alerts don't delay a correction.
Example: a hundred large polygons are waiting when an alert is cancelled. The cancel is drawn next, as soon as the
current picture is done.

When the node starts, the feed answers 503 until every alert that was live in the log is drawn.

An alert that can't be drawn harms no other: it is left out, counted and named in the log. It is tried again with its
next revision, and every AGAIN_S.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from ..clock import Clock, Now
from ..model.errors import trace
from ..stream.live_alerts import LiveAlert, LiveAlerts
from .picture import Picture

logger = logging.getLogger(__name__)

AGAIN_S = 60.0  # the pause before alerts that could not be drawn are tried again
RETRY_S = 1.0  # the pause before the next attempt if the drawer could not be started
_START = ""  # put in the queue after the alerts that were live at the start; no alert has this id


class Gallery:
    """The pictures of all live alerts, and the queue of alerts that wait to be drawn.

    A picture has an alert's part of each document of the feed. `draw` returns the picture of an alert. It raises
    OSError if no picture can be drawn at the moment, and any other exception if this one can't.
    """

    def __init__(self, live: LiveAlerts, clock: Clock, draw: Callable[[LiveAlert], Awaitable[Picture]]) -> None:
        self.pictures: dict[str, Picture] = {}  # by the id of the alert
        self.left_out: dict[str, None] = {}  # ids of live alerts that could not be drawn
        self.complete = asyncio.Event()  # set once every alert that was live at the start is drawn
        self._live = live
        self._clock = clock
        self._draw = draw
        self._changed: dict[str, None] = {}  # ids of alerts to draw that have an earlier picture, in order of arrival
        self._new: dict[str, None] = {}  # ids of alerts to draw that have no picture yet, in order of arrival
        self._woken = asyncio.Event()

    def want(self, alert_id: str) -> None:
        """Put an alert into the queue of alerts to draw.

        When its turn comes, it is skipped if its picture is up to date, or if it is not live and public.
        """
        (self._changed if alert_id in self.pictures else self._new)[alert_id] = None
        self._woken.set()

    def started(self) -> None:
        """Put a mark into the queue, after the alerts that were live at the start.

        All of these must be in the queue already. When the mark is reached, these alerts have been drawn, and
        `complete` is set.
        """
        self.want(_START)

    async def draw_for_ever(self) -> None:
        """Draw the alerts in the queue, one at a time. Never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self.left_out else None):
                    await self._woken.wait()
            if not self._woken.is_set():
                for each in self.left_out:
                    self.want(each)
            self._woken.clear()
            while wanted := self._changed or self._new:
                alert_id = next(iter(wanted))
                try:
                    await self._draw_one(alert_id)
                except OSError as error:
                    logger.error("the feed can't draw alerts at the moment: %s; trying again", trace(error))
                    await asyncio.sleep(RETRY_S)
                    continue
                except Exception as error:
                    self._leave_out(alert_id, error)
                wanted.pop(alert_id, None)

    async def _draw_one(self, alert_id: str) -> None:
        if alert_id == _START:
            self.complete.set()
            return
        alert = self._find(alert_id)
        while alert is not None and ((old := self.pictures.get(alert_id)) is None or old.number < alert.number):
            picture = await self._draw(alert)
            alert = self._find(alert_id)
            if alert is not None:
                self.pictures[alert_id] = picture
                self.left_out.pop(alert_id, None)

    def _leave_out(self, alert_id: str, error: Exception) -> None:
        if alert_id not in self.left_out:
            logger.error("the feed leaves out alert %r, which can't be drawn: %s", alert_id, trace(error))
        self.left_out[alert_id] = None
        alert = self._find(alert_id)
        if alert is not None and alert.cancel is not None:
            self.pictures.pop(alert_id, None)  # a cancelled alert must not be shown as a live one

    def _find(self, alert_id: str) -> LiveAlert | None:
        """Return the alert with this id if it is live, public (rule PF1) and verified, otherwise None.

        An alert is not verified if the content of its revision may still change under the same number.
        """
        alert = self._live.find(alert_id, self._clock.now())
        return None if alert is None or alert.restricted or alert.unbelieved else alert

    def shown(self, alert_id: str, now: Now) -> tuple[LiveAlert, Picture] | None:
        """Return an alert and its picture if the feed may show them, otherwise None.

        It may if the alert is live, and the drawn revision has not ended (E1, PF2).
        """
        alert, picture = self._live.find(alert_id, now), self.pictures.get(alert_id)
        if alert is None or picture is None or alert.ended(now) or now.wall_ms >= picture.ends_at:
            return None
        return alert, picture

    def forget(self) -> None:
        """Drop the pictures of alerts that are not live any more."""
        now = self._clock.now()
        for kept in (self.pictures, self.left_out):
            for alert_id in [each for each in kept if self._live.find(each, now) is None]:
                kept.pop(alert_id)
