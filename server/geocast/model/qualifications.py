"""The form of the qualifications of responders, which tokens name and policies ask for (RQ1)."""

import re
from typing import TypeGuard

MAX_QUALS = 16
QUALS_FORM = f"1 to {MAX_QUALS} texts of a-z, 0-9 and _, each of 1 to 32 characters"
_QUAL = re.compile(r"[a-z0-9_]{1,32}")


def are_quals(value: object) -> TypeGuard[list[str]]:
    """Return whether a value is a list of qualifications in the form that QUALS_FORM describes."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_QUALS:
        return False
    return all(isinstance(each, str) and _QUAL.fullmatch(each) for each in value)
