"""`python -m client_demo`."""

from client_demo.terminal.cli import main

main()
