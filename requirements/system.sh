#!/bin/sh
# What `make test` needs beside Python: a redis-server, for the tests of the log in Redis (they are skipped without one).
# It is installed if we may, and named in one line if we may not. The tests run servers of their own, so the service
# that Debian makes of it is neither started nor left enabled.
set -u
command -v redis-server >/dev/null 2>&1 && exit 0
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
policy=/usr/sbin/policy-rc.d # asked by Debian's packages before they start anything; 101 means no

install() {
    $as_root apt-get update -qq || return 1
    ours=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" || return 1
        $as_root chmod 755 "$policy"
        ours=yes
    fi
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends redis-server
    [ -z "$ours" ] || $as_root rm -f "$policy"
    $as_root systemctl disable redis-server || $as_root update-rc.d redis-server disable
    command -v redis-server
}

install </dev/null >/dev/null 2>&1 ||
    echo "geocast: the tests of the log in Redis are skipped; to run them: apt-get install redis-server" >&2
exit 0
