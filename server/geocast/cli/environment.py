"""The check of environment variables.

A variable whose name begins with GEOCAST_, but which is unknown, is a mistake.
"""

import re
from collections.abc import Collection, Iterator

from ..model.errors import did_you_mean

PREFIX = "GEOCAST_"

# Variables of the project's other programs, which may run with the same environment as a node.
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
        # The variables that set the options of `geocast push`.
        *("LISTEN", "DEVICES", "PUSH_KEYS", "VAPID", "CONTACT", "PUSH_SERVICES", "PUSH_PRIVATE", "FINEST_CELL"),
        *("LEASE_DAYS", "MAX_DEVICES", "PUSH_CA"),
        *("FEEDS", "TOKEN_FILE", "STATE"),  # of `geocast fetch`
        *("TARGETS", "RELAY_STATE"),  # of `geocast relay`
        *(
            "FAILPOINT",
            "INJECTIONS",
            "SLOW_FSYNC",
            "PICTURES",
            "CHECKED",
            "COMMAND",
            "REPORT_URL",
            "SOAK_EXAMPLES",
            "SOAK_FEEDS",
            "SOAK_ROUNDS",
            "SOAK_STEPS",
            "SOAK_SEED",
            "SOAK_MINUTES",
        ),
    )
)
# Kubernetes sets these variables in every pod that has a Service called `geocast` or `geocast-…` beside it.
_SERVICE_LINK = re.compile(
    r"GEOCAST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def unknown(names: Collection[str], settings: Collection[str]) -> Iterator[str]:
    """Yield a line of text for each name in `names` that begins with GEOCAST_ but is unknown.

    `names` are the names of environment variables, and `settings` the variables of the command's own options.
    """
    known = {*settings, *ELSEWHERE}
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name):
            yield f"{name} in the environment is no setting{did_you_mean(name, known, PREFIX)}"
