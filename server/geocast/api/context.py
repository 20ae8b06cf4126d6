"""The services, settings and limits that the routes of the api listener use."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from ..alertlog import AlertLog
from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenVerifier
from ..calls.service import CallService
from ..clock import Clock
from ..config import SHARE
from ..ingest.publish import Publishing
from ..metrics import Metrics
from ..policy import Policy
from ..policy.shares import Shares, Starts, Turns
from .drain import Drain

if TYPE_CHECKING:  # importing the XML parser takes 0.2 s and 10 MB, and many nodes receive no CAP messages
    from ..ingest.cap.service import CapIngest

Endpoint = Callable[[Request], Awaitable[Response]]

MAX_REQUESTS = 2_000  # concurrent requests of token holders and CAP sources
MAX_READS, READS_AT_ONCE = 128, 4  # reads of alerts and calls: how many may wait or run, and how many may run
MAX_DRY_RUNS, DRY_RUNS_AT_ONCE = 64, 4  # dry runs: how many may wait or run, and how many may run
MAX_CAP = 64  # CAP messages in progress: those that are complete, or already larger than an ordinary body


class Places:
    """Limits the concurrent work of the api listener: how many requests of each kind may be in progress at once.

    One subject (the owner of a token, or a CAP source) may use only a fraction of each limit (rule HD6).
    """

    def __init__(self, share: float = SHARE) -> None:
        """Create all limits. `share` is the fraction of each limit that one token owner or CAP source may use."""
        self.requests = Shares("requests under way", MAX_REQUESTS, share)
        self.reads = Turns("reads under way", MAX_READS, READS_AT_ONCE, share)
        self.dry_runs = Turns("dry runs under way", MAX_DRY_RUNS, DRY_RUNS_AT_ONCE, share)
        self.messages = Shares("messages of CAP under way", MAX_CAP, share)
        self.starts = Starts()


@dataclass(slots=True)
class ApiContext:
    """The services and settings that the routes of the api listener use.

    `unready` returns a list of the reasons why the node is not ready, which is empty if it is ready. `degraded` returns
    the number of calls with entries that no key can decrypt; such calls don't make the node unready (rule HD8). `reads`
    returns the servers from which the node reads the log, with the lag of each in seconds (rule RG4).
    `taking` processes CAP messages; it is None on a node that accepts none.
    """

    publishing: Publishing
    calling: CallService
    alert_log: AlertLog
    policy: Policy
    tokens: TokenVerifier
    clock: Clock
    metrics: Metrics
    unready: Callable[[], list[str]]
    taking: "CapIngest | None" = None
    newer_keys: NewerKeys | None = None  # None unless the keys for tokens come from a URL
    places: Places = field(default_factory=Places)
    drain: Drain = field(default_factory=Drain)
    degraded: Callable[[], int] = int
    reads: Callable[[], Mapping[str, float]] = dict
    requests: int = field(default=0, init=False)  # number of requests in progress
