"""Ids of alerts from CAP: where in the log a message is looked for.

    cap.3b1f…           what the first message of this name became: its first block
    cap.3b1f….2         its second block
    cap.3b1f…:2         what a later message of the same name became, where the first id was taken and had ended
    cap.3b1f…:2.2       … and its second block

The source's name is in the hash: so no source can touch, or forestall, an alert of another.
"""

import hashlib

from ..publish import RESERVED

_DIGITS = 32


def base(source: str, sender: str, identifier: str) -> str:
    """The id for messages of this name from this source."""
    name = "\n".join((source, sender, identifier)).encode()
    return RESERVED + hashlib.sha256(name).hexdigest()[:_DIGITS]


def generation(base_id: str, number: int) -> str:
    """The id of what the `number`th message of a name became, of those that were published as new; from 1."""
    return base_id if number == 1 else f"{base_id}:{number}"


def block(first_id: str, number: int) -> str:
    """The id of a message's `number`th block, from 1; `first_id` is that of the first."""
    return first_id if number == 1 else f"{first_id}.{number}"
