"""What may be published: a list of categories with bounds, and the rules of the protocol's section 3.

A policy is data (TOML). What is not listed is refused: a category that nobody has thought of is never published.

category  the keys of a category and their bounds
ages      how old something may be and when it ends: rules that alerts and calls share
calls     the keys of a category of calls, and their bounds
cap       which category a CAP message belongs to, and the keys of a policy's `[cap]`
rules     the policy, and every rule that a request breaks: pure functions of the claims, the time and what is current
files     from the text of a policy, a file's or a built-in one, to the policy
"""

from .ages import SKEW_MS
from .calls import CallCategory
from .category import MOST_AGE_S, Category
from .files import load, parse, read
from .rules import Policy

__all__ = ["MOST_AGE_S", "SKEW_MS", "CallCategory", "Category", "Policy", "load", "parse", "read"]
