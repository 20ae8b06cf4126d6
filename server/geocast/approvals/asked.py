"""How many reviewers must sign an entry, and how old their signatures may be (rule HD1).

Both depend on the policy in force and on all revisions of the alert, never on the last one alone. Example: a robbery
needs two signatures, and a flood none. A publisher revises a robbery into the category of floods: that revision, and
every later one, still needs two. The node that takes a request and every process that reads the log call the functions
here, so they come to the same result.
"""

from ..alertlog.chain import Kinds, kinds_of
from ..model.alert import Cancel, Entry
from ..policy import Policy


def asked(policy: Policy, entry: Entry, behind: Kinds) -> int:
    """Return how many reviewers must sign an entry; `behind` has the kinds of the alert's earlier revisions.

    A revision needs the most that its own kind or any earlier one asks for. A cancel needs the most that any earlier
    kind asks for a cancel.
    """
    if isinstance(entry, Cancel):
        return max((policy.cancel_approvals(key) for key, _ in behind), default=policy.cancel_approvals(None))
    return max(policy.approvals(key, confirmed=confirmed) for key, confirmed in behind | kinds_of(entry))


def max_age_s(policy: Policy, entry: Entry, behind: Kinds) -> int | None:
    """Return how old a signature may be, in seconds: the least of all kinds. Return None if no category is known."""
    kinds = behind if isinstance(entry, Cancel) else behind | kinds_of(entry)
    known = [policy.categories[key].approval_max_age_s for key, _ in kinds if key in policy.categories]
    return min(known, default=None)
