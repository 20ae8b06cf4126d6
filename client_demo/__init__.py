"""Clients of geocast, and a demo that uses them to check a node. README.md describes the purpose of each package.

The clients follow only `docs/protocol.md`, and import nothing from geocast. ARCHITECTURE.md shows which package may
import which. `console` formats text for people, without characters that could fool a terminal.
"""
