"""The policy: the categories that may be published, their limits, and the rules of the protocol's section 3.

A policy is a TOML file. Alerts of a category that is not in the file are refused. So nothing is published that the
author of the policy did not think of.

category      a category of alerts: its keys, their defaults and limits
ages          the rules on the age of an incident, and on the end of its alert or call
calls         a category of calls for help: its keys, their defaults and limits
cap           the mapping of CAP messages to categories, and the keys of a policy's `[cap]`
own_test      the texts of the test alerts that subscribers ask for
confirmation  large areas and revealing texts, which a person must confirm
pii           the detector of personal data in texts
rules         the policy, and pure functions that return the rules that a request breaks
files         reading a policy from a file, or a built-in one
publishers    the file with the limits of each publisher
shares        the part of a limited resource that one client may use
"""

from .ages import SKEW_MS
from .calls import CallCategory
from .category import MOST_AGE_S, Category
from .files import load, parse, read
from .rules import Policy

__all__ = ["MOST_AGE_S", "SKEW_MS", "CallCategory", "Category", "Policy", "load", "parse", "read"]
