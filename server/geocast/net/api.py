"""What the calls of the api listener work on."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..alertlog import AlertLog
from ..clock import Clock
from ..metrics import Metrics
from ..policy import Policy
from ..publishing import Publishing
from ..tokens import Tokens
from .newer_keys import NewerKeys


@dataclass(slots=True)
class Api:
    """What the api listener works on. `unready` gives the reasons why the node is not ready, if any."""

    publishing: Publishing
    alert_log: AlertLog
    policy: Policy
    tokens: Tokens
    clock: Clock
    metrics: Metrics
    unready: Callable[[], list[str]]
    newer_keys: NewerKeys | None = None  # where keys are published at a URL
    draining: bool = False
    requests: int = field(default=0, init=False)  # under way

    def adopt(self, policy: Policy) -> None:
        """Have this policy in force. Requests that are under way go on by the one that they began with."""
        self.policy = policy
        self.publishing = self.publishing.under(policy)
