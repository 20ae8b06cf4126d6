"""The pictures of all live alerts, each drawn once, in the order in which the alerts became live (rule HD4).

No request draws, or waits for what is drawn. Until an alert is drawn, it is not in the feed; until its next revision or
its cancel is drawn, the feed has the revision before. What changes an alert that the feed has is drawn first, so that a
new alert delays no correction. When the node starts, the feed is not there before all that was live is drawn.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..clock import Clock
from ..errors import trace
from ..stream.live_alerts import LiveAlert, LiveAlerts
from .picture import Picture

logger = logging.getLogger(__name__)

RETRY_S = 1.0  # until an alert is drawn again for which no drawer could be started
_START = ""  # stands in the queue behind what was live at the start; it is no alert's id


class Gallery:
    """What the feed shows of each live alert. `draw` draws one, and raises OSError if it can't now."""

    def __init__(self, live: LiveAlerts, clock: Clock, draw: Callable[[LiveAlert], Awaitable[Picture]]) -> None:
        self.pictures: dict[str, Picture] = {}  # by the id of the alert
        self.complete = asyncio.Event()  # all that was live at the start is drawn
        self._live = live
        self._clock = clock
        self._draw = draw
        self._changed: dict[str, None] = {}  # ids of alerts that have a picture of what they were before
        self._new: dict[str, None] = {}
        self._woken = asyncio.Event()

    def want(self, alert_id: str) -> None:
        """Have an alert drawn, if it is live and public, and not drawn yet as it is."""
        (self._changed if alert_id in self.pictures else self._new)[alert_id] = None
        self._woken.set()

    def started(self) -> None:
        """All that was live at the start is wanted by now."""
        self.want(_START)

    async def draw_for_ever(self) -> None:
        """Draw what is wanted, one alert at a time."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while wanted := self._changed or self._new:
                alert_id = next(iter(wanted))
                try:
                    await self._draw_one(alert_id)
                except OSError as error:
                    logger.error("the feed can't draw an alert now: %s", trace(error))
                    await asyncio.sleep(RETRY_S)
                    continue
                except Exception as error:
                    logger.error("an alert is left out of the feed, for it can't be drawn: %s", trace(error))
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
        """Return the alert if it is known, public (PF1), and was believed: what was not may change under its number."""
        alert = self._live.find(alert_id, self._clock.now())
        return None if alert is None or alert.restricted or alert.unbelieved else alert

    def _is_old(self, alert: LiveAlert) -> bool:
        picture = self.pictures.get(alert.id)
        return picture is None or picture.number < alert.number

    def forget(self) -> None:
        """Let go of the pictures of alerts that are not live any more."""
        now = self._clock.now()
        for alert_id in [each for each in self.pictures if self._live.find(each, now) is None]:
            del self.pictures[alert_id]
