"""What the calls of the api listener work on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..alertlog import AlertLog
from ..approvals.reviewers import NO_REVIEWERS, Reviewers
from ..calls.calling import Calling
from ..calls.sealing import NO_CALL_KEYS, CallKeys
from ..clock import Clock
from ..metrics import Metrics
from ..policy import Policy
from ..publishers.bounds import Publishers
from ..publishing import Publishing
from ..tokens import Tokens
from .newer_keys import NewerKeys

if TYPE_CHECKING:  # what reads XML takes 0.2 s and 10 MB: many a node is sent no message of CAP
    from ..upstream.sources import Sources
    from ..upstream.taking import Taking


@dataclass(slots=True)
class Api:
    """What the api listener works on. `unready` gives the reasons why the node is not ready, if any.

    `degraded` says how many calls have entries that no key opens: that makes no node unready (HD8).
    `taking` takes messages of CAP; None where none are taken.
    """

    publishing: Publishing
    calling: Calling
    alert_log: AlertLog
    policy: Policy
    tokens: Tokens
    clock: Clock
    metrics: Metrics
    unready: Callable[[], list[str]]
    taking: "Taking | None" = None
    newer_keys: NewerKeys | None = None  # where keys are published at a URL
    draining: bool = False
    degraded: Callable[[], int] = int
    requests: int = field(default=0, init=False)  # under way
    messages: int = field(default=0, init=False)  # of CAP, under way

    def adopt(
        self,
        policy: Policy,
        publishers: Publishers | None = None,
        sources: "Sources | None" = None,
        reviewers: Reviewers = NO_REVIEWERS,
        call_keys: CallKeys = NO_CALL_KEYS,
    ) -> None:
        """Have these in force. Requests that are under way go on by those that they began with."""
        self.policy = policy
        self.publishing = self.publishing.under(policy, publishers, reviewers)
        self.calling = self.calling.under(policy, call_keys)
        if self.taking is not None and sources is not None:
            self.taking = self.taking.under(policy, sources, publishers)
