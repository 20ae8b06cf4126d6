"""The policy: the categories that may be published, their bounds, and the rules of the protocol's section 3.

A policy is a TOML file. A category that is not in it is refused, so nothing is published that its author did not think
of.

category      a category of alerts: its keys, their defaults and bounds
ages          how old an incident may be and when its alert or call ends
calls         a category of calls: its keys, their defaults and bounds
cap           which category a CAP message belongs to, and the keys of a policy's `[cap]`
confirmation  large areas and revealing texts, which a person must confirm
pii           the detector of personal data in texts
rules         the policy, and the rules that a request breaks: pure functions of the request and the time
files         reading a policy from a file, or a built-in one
publishers    the file that bounds what each publisher may do
shares        how much of a bounded resource one subject may use
"""

from .ages import SKEW_MS
from .calls import CallCategory
from .category import MOST_AGE_S, Category
from .files import load, parse, read
from .rules import Policy

__all__ = ["MOST_AGE_S", "SKEW_MS", "CallCategory", "Category", "Policy", "load", "parse", "read"]
