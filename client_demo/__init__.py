"""Clients of geocast, and a demo that checks a node with them: README.md tells which room is for what.

They speak only `docs/protocol.md` and import nothing of geocast. ARCHITECTURE.md draws which room may import which.
`console` is what several rooms share: text for people, without what could fool a terminal.
"""
