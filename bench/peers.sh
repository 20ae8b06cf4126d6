#!/bin/sh
# Installs what geocast is measured against, and a C compiler: Debian packages here, PyPI's by requirements/bench-peers.txt.
# Debian starts what it installs; the bench runs its own, so those are stopped where there is a service manager.
set -eu
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
    gcc libc6-dev nginx libnginx-mod-nchan nats-server redis-server
for service in nginx nats-server redis-server; do
    $as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
done
