"""How many reviewers have to approve an entry, and how fresh their signatures have to be (HD1).

It is decided here alone, by the policy in force and the chain of the alert: at the door, and in every process that
reads the log.
"""

from ..alertlog.chain import Kinds, kinds_of
from ..model.alert import Cancel, Entry
from ..policy import Policy


def asked(policy: Policy, entry: Entry, behind: Kinds) -> int:
    """Return how many reviewers have to approve an entry that comes behind revisions of these kinds.

    A revision needs as many as the strictest of these revisions and of its own kind, a cancel as many as the strictest
    of these asks for a cancel.
    """
    if isinstance(entry, Cancel):
        return max((policy.cancel_approvals(key) for key, _ in behind), default=policy.cancel_approvals(None))
    return max(policy.approvals(key, confirmed=confirmed) for key, confirmed in behind | kinds_of(entry))


def max_age_s(policy: Policy, entry: Entry, behind: Kinds) -> int | None:
    """Return how old a signature may be in seconds: the least of all kinds; None where no category is known."""
    kinds = behind if isinstance(entry, Cancel) else behind | kinds_of(entry)
    known = [policy.categories[key].approval_max_age_s for key, _ in kinds if key in policy.categories]
    return min(known, default=None)
