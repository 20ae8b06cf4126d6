"""What the calls of the api listener work on."""

from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..alertlog import AlertLog
from ..approvals.reviewers import NO_REVIEWERS, Reviewers
from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenVerifier
from ..calls.encryption import NO_CALL_KEYS, CallKeys
from ..calls.service import CallService
from ..clock import Clock
from ..config import SHARE
from ..ingest.publish import Publishing
from ..metrics import Metrics
from ..policy import Policy
from ..policy.publishers.bounds import Publishers
from ..policy.shares import Shares, Starts, Turns
from .drain import Drain

if TYPE_CHECKING:  # what reads XML takes 0.2 s and 10 MB: many a node is sent no message of CAP
    from ..ingest.cap.service import CapIngest
    from ..ingest.cap.sources import CapSources

MAX_REQUESTS = 2_000  # requests of token holders and sources under way at once
MAX_READS, READS_AT_ONCE = 128, 4  # reads of alerts and calls: under way at once, and at work
MAX_DRY_RUNS, DRY_RUNS_AT_ONCE = 64, 4
MAX_CAP = 64  # CAP messages under way at once that are complete, or larger than an ordinary body


class Places:
    """The bounded things of the api listener, each with a share for every subject (rule HD6)."""

    def __init__(self, share: float = SHARE) -> None:
        """Prepare all places; `share` is the part of each bound that one subject may take."""
        self.requests = Shares("requests under way", MAX_REQUESTS, share)
        self.reads = Turns("reads under way", MAX_READS, READS_AT_ONCE, share)
        self.dry_runs = Turns("dry runs under way", MAX_DRY_RUNS, DRY_RUNS_AT_ONCE, share)
        self.messages = Shares("messages of CAP under way", MAX_CAP, share)
        self.starts = Starts()

    def judging(self, subject: Hashable, *, dry_run: bool) -> AbstractAsyncContextManager[None]:
        """Return what a request to publish is judged in: a dry run waits for a turn of its own kind."""
        return self.dry_runs.turn(subject) if dry_run else nullcontext()


@dataclass(slots=True)
class ApiContext:
    """What the api listener works on. `unready` gives the reasons why the node is not ready, if any.

    `degraded` says how many calls have entries that no key opens: that makes no node unready (HD8).
    `taking` takes messages of CAP; None where none are taken.
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
    newer_keys: NewerKeys | None = None  # where keys are published at a URL
    places: Places = field(default_factory=Places)
    drain: Drain = field(default_factory=Drain)
    degraded: Callable[[], int] = int
    requests: int = field(default=0, init=False)  # under way

    def adopt(
        self,
        policy: Policy,
        publishers: Publishers | None = None,
        sources: "CapSources | None" = None,
        reviewers: Reviewers = NO_REVIEWERS,
        call_keys: CallKeys = NO_CALL_KEYS,
    ) -> None:
        """Have these in force. Requests that are under way go on by those that they began with."""
        self.policy = policy
        self.publishing = self.publishing.with_config(policy, publishers, reviewers)
        self.calling = self.calling.with_config(policy, call_keys)
        if self.taking is not None and sources is not None:
            self.taking = self.taking.with_config(policy, sources, publishers)
