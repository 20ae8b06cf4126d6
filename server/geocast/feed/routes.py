"""The HTTP listener of the public feed: three kinds of documents, read-only, without a token (rules PF1 to PF3).

The feed follows the log itself, and answers from pictures in its memory: each has one alert's part of the documents
(rule HD4). So it keeps answering while the log is unavailable. Strangers can hardly cause reads of the log: only the
first request for the CAP message of a revision reads it.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..alertlog import AlertLog
from ..api.responses import RETRY_AFTER_S, application, forbid_storing, in_slices, problem_document, unless_known
from ..clock import Clock
from ..metrics import counters, gauge
from ..model import problems
from ..model.alert import Entry, Revision, Untrusted
from ..model.errors import trace
from ..model.problems import Problem
from ..stream.live_alerts import LiveAlert, LiveAlerts
from ..stream.log_reader import LogHealth, LogReader
from . import atom, cache, cap, geojson
from .areas import MEDIA_TYPE, Areas
from .cache import Body
from .gallery import Gallery
from .picture import Picture, PictureRequest

logger = logging.getLogger(__name__)

MAX_REQUESTS = 500  # in progress at once; further requests are answered with 429
# A connection has at most one request in progress. If clients don't read their answers, the HTTP server closes their
# connections to make room for new ones. So nobody can block the feed by not reading answers (rule HD6).
MAX_CONNECTIONS = MAX_REQUESTS
SWEEP_S = 1.0  # the pause between two removals of ended alerts
_EVERYWHERE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Age, Date, ETag, Retry-After",  # clients need these (rule PF6)
    "X-Content-Type-Options": "nosniff",
}
IN_BOX = "/alert/area"


class Feed:
    """The public feed: it keeps the live alerts, and returns three kinds of documents about them.

    Another process draws the pictures, the alerts' parts of these documents (HD4).
    """

    def __init__(
        self,
        issuer: cap.Issuer,
        alert_log: AlertLog,
        clock: Clock,
        keeper: LogHealth,
        draw: Callable[[PictureRequest], Awaitable[Picture]],
        *,
        areas: bool = False,
    ) -> None:
        """Prepare the feed. Nothing is read or drawn yet.

        `keeper` records whether the log can be read. `draw` returns the picture for a request, or raises OSError if no
        picture can be drawn at the moment. With `areas`, the feed also answers the requests of weather apps.
        """
        self.live = LiveAlerts(1, places=False)
        self.reader = LogReader(alert_log, clock, self.live, self._apply, keeper)
        self.requests = 0  # the number of requests in progress
        self.answers: Counter[int] = Counter()  # how many answers were sent, by status
        self._draw = draw
        self.gallery = Gallery(self.live, clock, self._drawn)
        self.geojson = cache.features(self.gallery, clock)
        self.atom = cache.entries(self.gallery, clock, issuer)
        self._issuer = issuer
        self.areas = Areas(self.live, alert_log, clock, issuer) if areas else None
        self._log = alert_log
        self._clock = clock
        self._messages: dict[str, tuple[int, Body]] = {}  # by alert id: latest number, its CAP message

    def adopt(self, issuer: cap.Issuer) -> None:
        """Use the CAP categories of a new policy for all pictures drawn from now on. Existing pictures stay."""
        self._issuer = issuer
        if self.areas is not None:
            self.areas.issuer = issuer

    def _apply(self, entry: Entry | Untrusted) -> None:
        if not isinstance(entry, Untrusted):  # only subscribers who already have such an alert need it
            now = self._clock.now()
            self.live.apply(entry, now)
            self.gallery.want(entry.id)
            if self.areas is not None:
                self.areas.take(self.live.find(entry.id, now))

    async def _drawn(self, alert: LiveAlert) -> Picture:
        return await self._draw(PictureRequest(alert.revision, alert.cancel, self._issuer))

    async def draw_for_ever(self) -> None:
        """Wait until the log has been read, and draw the alerts found in it, then all others. Never returns.

        As soon as the alerts of the start are drawn, the feed answers requests.
        """
        await self.reader.caught_up.wait()
        self.gallery.started()
        await self.gallery.draw_for_ever()

    def sweep(self) -> None:
        """Drop ended alerts, their pictures and their CAP messages. Call this every `sweep_s` seconds."""
        self.live.expire(self._clock.now())
        self.gallery.forget()
        self._messages = {i: m for i, m in self._messages.items() if i in self.gallery.pictures}
        if self.areas is not None:
            self.areas.forget()

    def sweep_s(self) -> float:
        """Return the pause until the next `sweep`, in seconds."""
        return 0 if self.live.behind else SWEEP_S

    async def message(self, alert_id: str) -> Body:
        """Return the CAP message of an alert.

        Raise Problem (404) if the feed does not show the alert, and LogUnavailable if the log is needed and can't be
        read.
        """
        alert, picture = self._shown(alert_id)
        number, kept = self._messages.get(alert_id, (0, None))
        if kept is None or number != picture.number:
            history = await self._log.history(alert.id)
            earlier = [each for each in history if isinstance(each, Revision) and each.revision < picture.number]
            content = cap.complete(picture.message, earlier, self._issuer.sender)
            kept = cache.of_one(content, alert, picture, self._clock.now())
            self._messages[alert_id] = picture.number, kept
            self._shown(alert_id)  # raises Problem (404) if the alert has ended meanwhile
        return kept

    def _shown(self, alert_id: str) -> tuple[LiveAlert, Picture]:
        shown = self.gallery.shown(alert_id, self._clock.now())
        if shown is None:
            raise Problem(problems.NOT_FOUND)
        return shown

    def metrics(self) -> Iterator[Metric]:
        """Yield the number of alerts in the feed, and the counts of its answers and of the requests of weather apps."""
        yield gauge("feed_alerts", "Alerts that the public feed has, cancelled ones included", len(self.live))
        left_out = len(self.gallery.left_out)
        yield gauge("feed_alerts_left_out", "Alerts that the public feed lacks, because they can't be drawn", left_out)
        answers = [(str(status), number) for status, number in sorted(self.answers.items())]
        yield counters("feed_answers", "Answers of the public feed", "status", answers)
        if self.areas is not None:
            requests = sorted(self.areas.requests.items())
            yield counters("feed_app_requests", "Requests of weather apps to the public feed", "request", requests)


def _routes_of_areas(areas: Areas, feed: Feed) -> Iterator[Route]:
    """Yield the routes for weather apps (rules FA1 to FA5)."""

    async def in_box(request: Request) -> Response:
        return JSONResponse(await areas.inside(request.query_params.multi_items()))

    async def message(request: Request) -> Response:
        return in_slices(await areas.message(request.path_params["name"]), {}, MEDIA_TYPE)

    async def status(_: Request) -> Response:
        return JSONResponse(areas.status(is_busy=feed.requests > MAX_REQUESTS // 2))

    yield Route(IN_BOX, in_box)
    yield Route("/alert/{name}", message)
    yield Route("/config/server_status", status)


def make_app(feed: Feed, clock: Clock) -> ASGIApp:
    """Return the ASGI application that serves the feed."""

    def route(path: str, body_for: Callable[..., Awaitable[Body]], media_type: str) -> Route:
        async def answer(request: Request) -> Response:
            body = await body_for(**request.path_params)
            return unless_known(request, body.content, body.headers(clock.now()), media_type)

        return Route(path, answer)

    routes = [
        route("/v1/alerts.geojson", feed.geojson.body, geojson.MEDIA_TYPE),
        route("/v1/feed.atom", feed.atom.body, atom.MEDIA_TYPE),
        route("/v1/cap/{alert_id}.xml", feed.message, cap.MEDIA_TYPE),
        *([] if feed.areas is None else _routes_of_areas(feed.areas, feed)),
    ]
    return _Bounds(application(routes, problem_document), feed)


@dataclass(slots=True)
class _Bounds:
    """ASGI middleware that refuses requests with a query, and all requests while the feed is incomplete.

    It also refuses requests if too many are in progress, counts the answers, and adds the headers that all of them
    have.
    """

    app: ASGIApp
    feed: Feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.feed.answers[message["status"]] += 1
                forbid_storing(message)
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in _EVERYWHERE.items()]
            await send(message)

        self.feed.requests += 1
        try:
            refused = self._refused(scope)
            await (self.app if refused is None else refused)(scope, receive, noted)
        except Exception as error:  # Starlette has already answered 500, if it still could
            logger.error("a request to the feed failed: %s", trace(error))
        finally:
            self.feed.requests -= 1

    def _refused(self, scope: Scope) -> Response | None:
        if self.feed.requests > MAX_REQUESTS:
            found = Problem.later(problems.TOO_MANY_REQUESTS, RETRY_AFTER_S)
        elif scope["query_string"] and (self.feed.areas is None or scope["path"] != IN_BOX):
            found = Problem(problems.BAD_REQUEST, "The feed takes no query.")
        elif not self.feed.gallery.complete.is_set():
            found = Problem.later(problems.LOG_UNAVAILABLE, RETRY_AFTER_S)
        else:
            return None
        return problem_document(found)
