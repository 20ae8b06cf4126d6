#!/bin/sh
# Installs a C compiler and the Debian packages of the servers that the benchmarks compare geocast with. The PyPI packages
# are in requirements/bench-peers.txt. Debian starts services when it installs them. The benchmarks start servers of their
# own, so this script stops Debian's services, if there is a service manager.
set -eu
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
    gcc libc6-dev nginx libnginx-mod-nchan nats-server redis-server
for service in nginx nats-server redis-server; do
    $as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
done
