#!/bin/sh
# Install the programs that `make test` needs besides Python. If a missing program can't be installed, one line names its
# package, and the tests that need it are skipped. The tests run servers of their own, so the services of newly installed
# Debian packages are neither started nor left enabled; packages that were installed before are not touched. The first
# argument, if given, is a file with more rows for the table below.
set -u
more="${1:-/dev/null}"
sbin="${SBIN:-/usr/sbin}" # Debian's folder of daemons, which is not in the PATH of ordinary users; a test sets SBIN
policy="$sbin/policy-rc.d" # Debian's packages run it before they start a service; status 101 forbids the start
PATH="$PATH:$sbin"

# command, the Debian packages that contain it, the services that these would enable, and the tests that need the command
table() {
    cat - "$more" <<'ROWS'
redis-server    redis-server    redis-server   the log in Redis
chromium        chromium        -              notifications of the web pages
chromium-headless-shell chromium-headless-shell - the web pages
cc              gcc,libc6-dev   -              processes with a wall clock of their own
spin            spin            -              tests/specification
haproxy         haproxy         haproxy        docs/deploy/haproxy.cfg
nginx           nginx           nginx          docs/deploy/nginx.conf
caddy           caddy           caddy          the Caddyfile of docs/operations/one-node.md
promtool        prometheus      prometheus     docs/deploy/geocast.rules.yml
prometheus      prometheus      prometheus     docs/deploy/grafana.json
systemd-analyze systemd         -              docs/deploy/geocast.service
buildah         buildah,netavark -             the container image
mmdebstrap      mmdebstrap      -              the base image of the container image
docker-compose  docker-compose  -              compose.yaml
kubectl         kubectl         -              docs/deploy/kubernetes
curl            curl            -              the steps of README.md
ip              iproute2        -              a Redis whose network is cut off
mount           mount           -              a full disk
nft             nftables        nftables       docs/deploy/push-egress.nft
mosquitto       mosquitto       mosquitto      a recipe of docs/guide/ways-out.md
mosquitto_pub   mosquitto-clients -            a recipe of docs/guide/ways-out.md
dnsmasq         dnsmasq-base    -              docs/deploy/push-egress.dnsmasq.conf
ROWS
}

# missing COLUMN: print this column (packages or services) of the rows whose command is missing
missing() {
    table | while read -r command packages services _; do
        command -v "$command" >/dev/null 2>&1 && continue
        if [ "$1" = packages ]; then echo "$packages"; else echo "$services"; fi
    done | tr ',' '\n' | grep -v '^-$' | sort -u
}

apt() { DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@"; }

# install PACKAGE…: install all at once; if that fails, install each of them that can be installed
install() {
    $as_root apt-get update -qq || return 1
    ours=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" || return 1
        $as_root chmod 755 "$policy"
        ours=yes
    fi
    apt "$@" || for package in "$@"; do apt "$package"; done
    [ -z "$ours" ] || $as_root rm -f "$policy"
}

wanted=$(missing packages)
[ -n "$wanted" ] || exit 0
services=$(missing services)
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
# shellcheck disable=SC2086 # a list of packages
install $wanted </dev/null >/dev/null 2>&1
for service in $services; do
    $as_root systemctl disable "$service" || $as_root update-rc.d "$service" disable
done </dev/null >/dev/null 2>&1
wanted=$(missing packages)
# shellcheck disable=SC2086 # on one line
[ -z "$wanted" ] || echo "geocast: some tests are skipped; to run them: apt-get install" $wanted >&2
exit 0
