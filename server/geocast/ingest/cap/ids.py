"""The ids of alerts from CAP, which are made from the source, the sender and the identifier of a message.

    cap.3b1f…           the first block of the first message of this name
    cap.3b1f….2         the second block of that message
    cap.3b1f…:2         the first block of a later message of this name, published as new because cap.3b1f… has ended
    cap.3b1f…:2.2       the second block of that later message

The hash includes the name of the source. So one source can neither change an alert of another source nor take its id
in advance.
"""

import hashlib

from ..publish import RESERVED

_DIGITS = 32


def base(source: str, sender: str, identifier: str) -> str:
    """Return the id for messages of this sender and identifier from this source."""
    name = "\n".join((source, sender, identifier)).encode()
    return RESERVED + hashlib.sha256(name).hexdigest()[:_DIGITS]


def generation(base_id: str, number: int) -> str:
    """Return the id of the `number`th message of a name that was published as new. `number` counts from 1."""
    return base_id if number == 1 else f"{base_id}:{number}"


def block(first_id: str, number: int) -> str:
    """Return the id of a message's `number`th block, counted from 1. `first_id` is the id of the first block."""
    return first_id if number == 1 else f"{first_id}.{number}"
