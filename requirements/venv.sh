#!/bin/sh
# Make the virtual environment $VENV with $PYTHON. Debian has venv's pip in a separate package. If this package is missing,
# it is installed; if it can't be installed, one line names it.
set -u
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "geocast: needs Python 3.11 or later as '$PYTHON' (choose another with make PYTHON=…)" >&2
    exit 1
fi
"$PYTHON" -m venv "$VENV" >/dev/null 2>&1 && exit 0
package="python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
rm -rf "$VENV"
if { $as_root apt-get update -qq && $as_root apt-get install -y -qq "$package"; } >/dev/null 2>&1; then
    exec "$PYTHON" -m venv "$VENV"
fi
echo "geocast: '$PYTHON -m venv' does not work here: apt-get install $package" >&2
exit 1
