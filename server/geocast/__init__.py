"""Geocast: approved alerts in over HTTP, to every subscriber inside the radius over WebSockets, and to nobody else.

    api                  takes the bytes of a POST
    ingest               decides, by the policy: bytes -> an accepted Entry, or every rule that it breaks (422)
    alertlog             appends the Entry, durable before the 201
    stream.log_reader    follows the log, its own appends included: Entry, Entry, … in order
    stream.live_alerts   Entry -> what is current now, and who was told what before
    stream.fanout        finds out whom it concerns (matching: area -> rows with a place inside; filters), in slices
    stream.hub           has wire encode it, once per wire format, and has the frame written to sessions
    stream.connection    the sessions' connections; what subscribers say goes the other way: session -> hub

One path, whatever the number of processes and nodes. ARCHITECTURE.md draws who imports whom; a test proves it.
"""

__version__ = "0.1.0"
