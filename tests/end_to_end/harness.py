"""All that a test outside this folder needs of a node and its users, under one name."""

from end_to_end.alerts import (
    SEVERITIES,
    Json,
    alert,
    approval,
    cancel_body,
    circle,
    ground,
    new_id,
    place,
    revision_of,
)
from end_to_end.keys import DESK_SCOPE, EVERY_SCOPE, PHONE_SCOPE, Keys, bearer
from end_to_end.node import BIN, ORIGIN, Node, clean_environment, free_ports, is_running
from end_to_end.subscriber import FORMATS, TOKEN_OF_KEYS, Session, rank, revise_and_cancel, told
from end_to_end.times import moment, now, stamp, wait_until

__all__ = [
    "BIN",
    "DESK_SCOPE",
    "EVERY_SCOPE",
    "FORMATS",
    "ORIGIN",
    "PHONE_SCOPE",
    "SEVERITIES",
    "TOKEN_OF_KEYS",
    "Json",
    "Keys",
    "Node",
    "Session",
    "alert",
    "approval",
    "bearer",
    "cancel_body",
    "circle",
    "clean_environment",
    "free_ports",
    "ground",
    "is_running",
    "moment",
    "new_id",
    "now",
    "place",
    "rank",
    "revise_and_cancel",
    "revision_of",
    "stamp",
    "told",
    "wait_until",
]
