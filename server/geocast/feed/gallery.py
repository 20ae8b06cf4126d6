"""The pictures of all live alerts, each drawn once, in the order in which the alerts became live (rule HD4).

A *picture* has an alert's part of each document of the feed, as bytes. HTTP requests never draw a picture, or wait for
one. An alert is not in the feed until its picture is drawn. If the alert changes, the feed shows the earlier picture
until the next revision or the cancel is drawn. Changes of alerts that are in the feed are drawn before new alerts, so
that new alerts don't delay a correction.
Example: a hundred large polygons are waiting when an alert is cancelled. The cancel is drawn next, as soon as the
current picture is done.

When the node starts, the feed answers 503 until every alert that was live in the log is drawn.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..clock import Clock
from ..model.errors import trace
from ..stream.live_alerts import LiveAlert, LiveAlerts
from .picture import Picture

logger = logging.getLogger(__name__)

RETRY_S = 1.0  # the pause before the next attempt if the drawer could not be started
_START = ""  # put in the queue after the alerts that were live at the start; no alert has this id


class Gallery:
    """The pictures of all live alerts, and the queue of alerts that wait to be drawn.

    A picture has an alert's part of each document of the feed. `draw` returns the picture of an alert. It raises
    OSError if no picture can be drawn at the moment.
    """

    def __init__(self, live: LiveAlerts, clock: Clock, draw: Callable[[LiveAlert], Awaitable[Picture]]) -> None:
        self.pictures: dict[str, Picture] = {}  # by the id of the alert
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
            await self._woken.wait()
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
                    logger.error("the feed lacks an alert, because it could not be drawn: %s", trace(error))
                wanted.pop(alert_id, None)

    async def _draw_one(self, alert_id: str) -> None:
        if alert_id == _START:
            self.complete.set()
            return
        alert = self._find(alert_id)
        while alert is not None and self._is_old(alert):
            picture = await self._draw(alert)
            alert = self._find(alert_id)
            if alert is not None:
                self.pictures[alert_id] = picture

    def _find(self, alert_id: str) -> LiveAlert | None:
        """Return the alert with this id if it is live, public (rule PF1) and verified, otherwise None.

        An alert is not verified if the content of its revision may still change under the same number.
        """
        alert = self._live.find(alert_id, self._clock.now())
        return None if alert is None or alert.restricted or alert.unbelieved else alert

    def _is_old(self, alert: LiveAlert) -> bool:
        picture = self.pictures.get(alert.id)
        return picture is None or picture.number < alert.number

    def forget(self) -> None:
        """Drop the pictures of alerts that are not live any more."""
        now = self._clock.now()
        for alert_id in [each for each in self.pictures if self._live.find(each, now) is None]:
            del self.pictures[alert_id]
