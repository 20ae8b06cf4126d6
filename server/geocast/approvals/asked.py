"""How many reviewers must sign an entry, and how old their signatures may be (rule HD1).

Both depend on the current policy and on all revisions of the alert, never on the last revision alone. The *kind* of a
revision is its category, and whether a person confirmed something in it.
Example: a robbery needs two signatures, and a flood none. A publisher revises a robbery into the category of floods.
This revision, and every later one, still needs two signatures.

The node that accepts a request and every process that reads the log call these functions, so all get the same result.
"""

from ..alertlog.chain import Kinds, kinds_of
from ..model.alert import Cancel, Entry
from ..policy import Policy


def asked(policy: Policy, entry: Entry, behind: Kinds) -> int:
    """Return how many reviewers must sign an entry.

    `behind` is the set of the kinds (categories) of the alert's earlier revisions. A revision needs the highest number
    that the policy requires for its own kind or for any earlier kind. A cancel needs the highest number that the policy
    requires for a cancel after any of the earlier kinds.
    """
    if isinstance(entry, Cancel):
        return max((policy.cancel_approvals(key) for key, _ in behind), default=policy.cancel_approvals(None))
    return max(policy.approvals(key, confirmed=confirmed) for key, confirmed in behind | kinds_of(entry))


def max_age_s(policy: Policy, entry: Entry, behind: Kinds) -> int | None:
    """Return how old a signature may be, in seconds, or None if the policy knows none of the alert's categories.

    The categories of this revision and of all earlier ones count, and the lowest of their limits applies. `behind` is
    the set of the kinds (categories) of the alert's earlier revisions.
    """
    kinds = behind if isinstance(entry, Cancel) else behind | kinds_of(entry)
    known = [policy.categories[key].approval_max_age_s for key, _ in kinds if key in policy.categories]
    return min(known, default=None)
