#!/bin/sh
# Build the image $IMAGE from the Dockerfile's $TARGET with $BUILDER or, by default, with the first of docker, podman and
# buildah that works here, and print which was used. $BASE is another base image; $BUILD_OPTIONS are further options for the
# program's `build`.
set -eu
works() {
    case $1 in
    buildah) command -v buildah ;;
    podman) podman info ;;
    *) "$1" info && "$1" buildx version ;; # docker needs its daemon, and buildx for the Dockerfile's cache mounts
    esac >/dev/null 2>&1
}

for program in ${BUILDER:-docker podman buildah}; do
    works "$program" || continue
    echo "geocast: building $IMAGE with $program"
    [ "$program" = docker ] || BUILD_OPTIONS="--format docker ${BUILD_OPTIONS:-}" # the OCI format has no health check
    # shellcheck disable=SC2086 # a list of options
    exec "$program" build --file Dockerfile --target "${TARGET:-node}" --tag "$IMAGE" \
        --build-arg "COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || true)" ${BASE:+--build-arg "BASE=$BASE"} ${BUILD_OPTIONS:-} .
done
echo "geocast: an image needs docker with its daemon and buildx, podman, or buildah (apt-get install buildah)" >&2
exit 1
