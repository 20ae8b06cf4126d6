"""Clients of geocast, and a demo that checks a node with them. README.md describes the purpose of each package.

They use only `docs/protocol.md` and import nothing from geocast. ARCHITECTURE.md shows which package may import which.
`console` formats text for people, without characters that could fool a terminal.
"""
