#!/bin/sh
# What `make test` needs beside Python: a redis-server, for the tests of the log in Redis; a chromium, for those of the
# web pages; a C compiler, for those in which a process has a wall clock of its own. What is missing is installed if we
# may, and named in one line if we may not; then those tests are skipped. The tests run servers of their own, so the
# service that Debian makes of redis-server is neither started nor left enabled.
set -u
commands="redis-server chromium" # each in a Debian package of its own name
policy=/usr/sbin/policy-rc.d     # asked by Debian's packages before they start anything; 101 means no

missing() {
    for command in $commands; do
        command -v "$command" >/dev/null 2>&1 || printf ' %s' "$command"
    done
    command -v cc >/dev/null 2>&1 || printf ' gcc libc6-dev'
}

install() {
    $as_root apt-get update -qq || return 1
    ours=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" || return 1
        $as_root chmod 755 "$policy"
        ours=yes
    fi
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@"
    [ -z "$ours" ] || $as_root rm -f "$policy"
    case " $* " in
    *" redis-server "*) $as_root systemctl disable redis-server || $as_root update-rc.d redis-server disable ;;
    esac
}

wanted=$(missing)
[ -n "$wanted" ] || exit 0
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
# shellcheck disable=SC2086 # a list of packages
install $wanted </dev/null >/dev/null 2>&1
wanted=$(missing)
[ -z "$wanted" ] || echo "geocast: some tests are skipped; to run them: apt-get install$wanted" >&2
exit 0
