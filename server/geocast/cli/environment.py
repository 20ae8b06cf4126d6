"""The environment: a variable that geocast does not know is a mistake, and is not passed over in silence."""

import re
from collections.abc import Collection, Iterator

from ..errors import did_you_mean

PREFIX = "GEOCAST_"

# What other programs of the project read: they may share an environment with a node.
ELSEWHERE = frozenset(
    PREFIX + name
    for name in (
        *(
            "TOKEN",
            "API_URL",
            "STREAM_URL",
            "TOKEN_URL",
            "TOKEN_COMMAND",
            "WIRE",
            "CATEGORY",
            "MIN_SEVERITY",
            "LANGUAGE",
        ),
        *("FEED_FORMAT", "LAT", "LNG", "ACCURACY", "CELL", "REVIEWER", "PAGE_TOKEN", "MAP_PORT", "MAP_STYLE"),
        *("PAGE_BIND", "LOAD_TOKEN", "LOAD_PUBLISH_TOKEN", "DISPATCH_TOKEN", "PUSH_URL"),
        # of `geocast push`
        *("LISTEN", "DEVICES", "PUSH_KEYS", "VAPID", "CONTACT", "PUSH_SERVICES", "PUSH_PRIVATE", "FINEST_CELL"),
        *("LEASE_DAYS", "MAX_DEVICES", "PUSH_CA"),
        *("FAILPOINT", "SLOW_FSYNC", "SOAK_EXAMPLES", "SOAK_STEPS", "SOAK_SEED", "SOAK_MINUTES"),
    )
)
# Kubernetes sets these in every pod beside a Service that is called `geocast` or `geocast-…`.
_SERVICE_LINK = re.compile(
    r"GEOCAST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def unknown(names: Collection[str], settings: Collection[str]) -> Iterator[str]:
    """What is wrong with the variables of these names, a line each. `settings`: the variables of a node."""
    known = {*settings, *ELSEWHERE}
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name):
            yield f"{name} in the environment is no setting{did_you_mean(name, known, PREFIX)}"
