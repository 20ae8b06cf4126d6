"""`python -m geocast`."""

from .cli import main

main()
