#!/bin/sh
# Make the annotated tag of the newest release in CHANGELOG.md, at the commit that is checked out. The tag's text is that
# release's part of the changelog. With -n, only print the tag's name.
set -eu
refuse() { echo "geocast: no tag was made: $1" >&2; exit 1; }
part() { awk -v begin="## [$1]" '/^## / { inside = index($0, begin) == 1; next } inside' CHANGELOG.md; }

version=$(sed -n 's/^## \[\([0-9][^]]*\)\] - .*/\1/p' CHANGELOG.md | head -n 1)
package=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' server/geocast/__init__.py)
[ "$version" = "$package" ] || refuse "the newest release in CHANGELOG.md is '$version', but the package is '$package'"
[ "${1:-}" != -n ] || { echo "v$version"; exit; }
[ -z "$(part Unreleased | tr -d '[:space:]')" ] || refuse "CHANGELOG.md has unreleased changes; move them to a release"
[ -z "$(git status --porcelain)" ] || refuse "the working tree has changes; commit them first"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null || refuse "v$version exists already"
{ echo "geocast $version" && part "$version"; } | git tag --annotate --cleanup=whitespace --file - "v$version"
echo "v$version"
