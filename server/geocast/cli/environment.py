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
    for names in (
        "TOKEN TOKEN_URL TOKEN_COMMAND API_URL STREAM_URL WIRE CATEGORY MIN_SEVERITY LANGUAGE LAT LNG ACCURACY CELL",
        "PUSH_URL FEED_FORMAT REVIEWER PAGE_TOKEN PAGE_BIND MAP_PORT MAP_STYLE DISPATCH_TOKEN",
        # The variables that set the options of `geocast push`, `geocast fetch`, `geocast relay` and `geocast part`.
        "LISTEN DEVICES PUSH_KEYS VAPID CONTACT PUSH_SERVICES PUSH_PRIVATE FINEST_CELL LEASE_DAYS MAX_DEVICES PUSH_CA",
        "FEEDS TOKEN_FILE STATE TARGETS RELAY_STATE PART_OPTIONS",
        # Tests and measurements use these variables.
        "LOAD_TOKEN LOAD_PUBLISH_TOKEN FAILPOINT INJECTIONS SLOW_FSYNC PICTURES CHECKED COMMAND REPORT_URL",
        "SOAK_EXAMPLES SOAK_FEEDS SOAK_ROUNDS SOAK_STEPS SOAK_SEED SOAK_MINUTES",
    )
    for name in names.split()
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
