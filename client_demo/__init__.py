"""A client of geocast, and a demo that checks a node with it. It speaks only `docs/protocol.md` and imports nothing of geocast.

    listening    client (asyncio shell) -> holdings (what is held, what changed), reconnect (when to come back)
    publishing   feeds (dispatch records) -> desk (refuse, or write and approve) -> publisher (HTTP)
    the demo     demo (runs it) -> crowd (simulated subscribers, in processes of their own) -> verdict (who had to get what)
    shared       geo (the sphere), times, wire (JSON and MessagePack)

holdings, reconnect, feeds, desk, verdict, geo, times and wire do no I/O and have no clock of their own: time is passed in.
"""
