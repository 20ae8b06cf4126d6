"""The entry point of `python -m geocast`."""

from .cli import main

main()
