#!/bin/sh
# Search a model to its end: search.sh MODEL [-DNAME[=VALUE]…]. If an assertion fails, print the history that leads to it;
# with SHORTEST=1, the shortest one.
set -eu
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$(dirname "$0")/$1" "$work/model.pml"
shift
cd "$work"
[ -z "${SHORTEST:-}" ] || set -- "$@" -Dhidden= # a breadth-first search can't have hidden variables
spin "$@" -a model.pml
cc -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 ${SHORTEST:+-DBFS} -o pan pan.c
./pan -m1000000 -w24 | tee found | grep --line-buffered "^Depth=.*e+0[678] " || true
grep -E "errors:|states, stored|elapsed|error: max" found
if [ -e model.pml.trail ]; then
    spin "$@" -t model.pml | sed '/^ *$/d; /^#processes/,$d'
    exit 1
fi
