"""The entry point of `python -m bench`."""

import sys

try:
    from bench.cli import main
except ModuleNotFoundError as error:
    package = (error.name or "bench").partition(".")[0]
    if package in ("bench", "client_demo"):
        raise
    # `make install` installs only the packages of a node; the benchmarks need more.
    with_pip = f"{sys.executable} -m pip install -r requirements/bench.txt"
    sys.exit(f"error: the benchmarks need {package} and more, which `make bench` installs, or: {with_pip}")

if __name__ == "__main__":
    main()
