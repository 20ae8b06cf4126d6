"""Entry point of `python -m client_demo`."""

import sys

try:
    from client_demo.terminal.cli import main
except ModuleNotFoundError as error:
    package = (error.name or "client_demo").partition(".")[0]
    if package == "client_demo":
        raise
    # `make install` installs only the packages of a node; the clients need more.
    with_pip = f"{sys.executable} -m pip install -r requirements/demo.txt"
    sys.exit(f"error: the clients need {package} and more, which `make demo` installs, or: {with_pip}")

main()
