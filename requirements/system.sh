#!/bin/sh
# Installs what some tests need and no Python package brings, where we may. Where we may not, it is named in one line;
# the tests that need it are skipped and say so.
set -u
missing=""
while read -r command package; do
    command -v "$command" >/dev/null 2>&1 || missing="$missing $package"
done <<END
redis-server redis-server
chromium chromium
END
[ -n "$missing" ] || exit 0
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
# shellcheck disable=SC2086  # a list of packages
if { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1; then
    exit 0
fi
echo "geocast: some tests will be skipped; to run them: apt-get install$missing" >&2
exit 0
