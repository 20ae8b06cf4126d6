"""Geocast: approved alerts in over HTTP, to every subscriber inside the radius over WebSockets, and to nobody else.

    net/calls       takes the bytes of a POST
    publishing      decides: by alert (form) and policy; bytes -> an accepted Entry, or every rule that it breaks (422)
    alertlog        appends the Entry, durable before the 201
    delivery        follows the log, its own appends included: Entry, Entry, … in order
    live            Entry -> what is current now, and who was told what before
    hub             finds out whom it concerns (index: area -> sessions with a place inside; filters), has frames encode
                    it, once per wire format, and has the frame written to them, in slices
    net/websocket   the sessions' connections; what subscribers say goes the other way: session -> hub

One path, whatever the number of processes and nodes. ARCHITECTURE.md draws who imports whom; a test proves it.
"""

__version__ = "0.1.0"
