"""A client of geocast, and a demo that checks a node with it.

It speaks only `docs/protocol.md` and imports nothing of geocast.

    listening    client (asyncio shell) -> holdings (what is held, what changed), reconnect (when to come back)
    publishing   feeds (dispatch records) -> desk (refuse, or write and approve) -> publisher (HTTP)
    the desk     review (a page, and the service behind it, where people decide)
    terminal     cli, command (what commands share), terminal (listen, walk), show (what a person sees)
    the demo     demo (the acts) -> stage (processes), population, crowd (subscribers) -> verdict (who had to get what)
    conformance  is a client right? Test vectors, and a server that plays the contract to any client
    shared       geo (the sphere), times, wire (JSON and MessagePack)

holdings, reconnect, desk, population, verdict and geo do no I/O and have no clock of their own: time is passed in.
"""
