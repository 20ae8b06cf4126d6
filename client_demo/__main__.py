"""`python -m client_demo`."""

from client_demo.cli import main

main()
