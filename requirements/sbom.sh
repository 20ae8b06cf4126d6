#!/bin/sh
# Write the bill of materials of a node to $1 (CycloneDX 1.6, checked against its schema): each package of the lock with its
# hashes. $BIN contains cyclonedx-py. pyproject.toml leaves the version to the build, so it is filled in for the tool.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' server/geocast/__init__.py)
sed -e 's/^dynamic = .*/version = "'"$version"'"/' -e '/^license-files/d' pyproject.toml >"$work/pyproject.toml"
PYTHONWARNINGS=ignore "$BIN/cyclonedx-py" requirements --pyproject "$work/pyproject.toml" --sv 1.6 \
    --output-reproducible -o "$1" requirements/runtime.txt
