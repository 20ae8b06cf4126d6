"""The ids of alerts from CAP, made from a hash of the source, the sender and the identifier of a message.

The *name* of a message is its sender and identifier. A *block* is a part of a message that becomes one alert.

    cap.3b1f…           the first block of the first message with this name
    cap.3b1f….2         the second block of this message
    cap.3b1f…:2         the first block of a later message with this name, published as new because cap.3b1f… has ended
    cap.3b1f…:2.2       the second block of the later message

The hash includes the name of the source. So no source can change an alert of another source, or take its id in advance.
"""

import hashlib

from ..publish import RESERVED

_DIGITS = 32


def base(source: str, sender: str, identifier: str) -> str:
    """Return the id for messages with this name (sender and identifier) from this source."""
    name = "\n".join((source, sender, identifier)).encode()
    return RESERVED + hashlib.sha256(name).hexdigest()[:_DIGITS]


def generation(base_id: str, number: int) -> str:
    """Return the id for the `number`th message with one name that was published as new, counted from 1.

    `base_id` is the id for the first such message. A name is a message's sender and identifier.
    """
    return base_id if number == 1 else f"{base_id}:{number}"


def block(first_id: str, number: int) -> str:
    """Return the id of the `number`th alert that is made from a message, counted from 1.

    `first_id` is the id of the first alert.
    """
    return first_id if number == 1 else f"{first_id}.{number}"
