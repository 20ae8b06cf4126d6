"""Geocast: approved alerts in over HTTP, to every subscriber inside the radius over WebSockets, and to nobody else.

    net/http        POST body -> bytes
    alert, policy   bytes -> Alert with its published area, or every rule that it breaks (422)
    alertlog        append: Alert -> Entry, durable before the 201
    node            follows the log, its own appends included: Entry, Entry, … in order
    live            Entry -> what is current now, and who was told what before
    index           area -> the sessions with a place inside
    frames          revision -> bytes, once per wire format
    hub             bytes -> transports, in slices
    net/websocket   transports, and what subscribers say: session -> hub

One path, whatever the number of nodes. Imports go down only; a test proves it.
"""

__version__ = "0.1.0"
