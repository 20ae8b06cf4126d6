#!/bin/sh
# Writes to $1 what a node is made of (CycloneDX 1.6, checked against its schema): each package of the lock, with hashes.
# $BIN has cyclonedx-py. The version, which pyproject.toml leaves to the build, is put where the tool looks for it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' server/geocast/__init__.py)
sed -e 's/^dynamic = .*/version = "'"$version"'"/' -e '/^license-files/d' pyproject.toml >"$work/pyproject.toml"
PYTHONWARNINGS=ignore "$BIN/cyclonedx-py" requirements --pyproject "$work/pyproject.toml" --sv 1.6 \
    --output-reproducible -o "$1" requirements/runtime.txt
