"""Geocast: a server that accepts approved alerts over HTTP and pushes each over WebSockets to the subscribers inside.

An alert passes through these packages and modules:

    api                  receives the bytes of a POST
    ingest               applies the policy: bytes -> an accepted Entry, or a 422 with every broken rule
    alertlog             appends the Entry, which is durable before the 201
    stream.log_reader    follows the log, including the process's own appends: Entry, Entry, … in order
    stream.live_alerts   keeps the current alerts, and which subscriber was sent which revision
    stream.fanout        finds the recipients (matching: area -> subscribers with a place inside), some at a time
    stream.hub           has wire encode the Entry once per wire format, and writes the frame to the sessions
    stream.connection    holds the WebSocket connections; messages of subscribers go from session to hub

The path is the same for any number of processes and nodes. ARCHITECTURE.md shows which package may import which, and a
test checks that.
"""

__version__ = "0.1.0"
