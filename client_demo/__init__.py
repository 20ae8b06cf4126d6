"""Clients of geocast, and a demo that checks a node with them: README.md tells what each package is for.

They speak only `docs/protocol.md` and import nothing of geocast. ARCHITECTURE.md draws which package may import which.
`console` formats text for people, without characters that could fool a terminal.
"""
