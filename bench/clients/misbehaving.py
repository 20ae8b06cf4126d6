"""Sessions that misbehave: some never read, some read 1 KB a second, and some send pings without reading.

Runs as a process of its own: `python -P misbehaving.py PORT OPENINGS NEVER DRIP PING`. OPENINGS is a JSON file with the
handshake request and one `hello` for each session. NEVER, DRIP and PING are the numbers of sessions of each kind. The
process prints "ready" when all sessions have joined.
"""

import base64
import json
import socket
import sys
import time
from pathlib import Path

RECEIVE_BUFFER = 4096  # bytes; small, so that the server soon notices that nothing is read
DRIP_BYTES = 1024  # bytes per second
PING = b"\x89\xfd" + bytes(4) + bytes(125)
PINGS_PER_S = 8  # a little below the limit of the protocol
PATIENCE_S = 30.0


def join(port: int, request: bytes, hello: bytes) -> socket.socket:
    """Connect, send `hello`, and wait for the welcome. Return the socket of the session, in non-blocking mode."""
    session = socket.socket()
    session.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    session.settimeout(PATIENCE_S)
    session.connect(("127.0.0.1", port))
    session.sendall(request)
    while b"\r\n\r\n" not in session.recv(4096, socket.MSG_PEEK):
        time.sleep(0.001)
    session.recv(4096)
    session.sendall(hello)
    while b'"welcome"' not in session.recv(4096):
        pass
    session.setblocking(False)
    return session


def drip(session: socket.socket) -> None:
    """Read at most DRIP_BYTES bytes from a session."""
    try:
        session.recv(DRIP_BYTES)
    except OSError:
        return


def ping(session: socket.socket) -> None:
    """Send a ping of the largest size that WebSocket allows."""
    try:
        session.send(PING)
    except OSError:
        return


def main(port: int, openings: Path, never: int, dripping: int, pinging: int) -> None:
    """Connect the sessions, and let them misbehave until the process is killed."""
    texts = json.loads(openings.read_text())
    request, hellos = base64.b64decode(texts["request"]), [base64.b64decode(hello) for hello in texts["hellos"]]
    sessions = [join(port, request, hello) for hello in hellos[: never + dripping + pinging]]
    print("ready", flush=True)
    while True:
        for _ in range(PINGS_PER_S):
            for session in sessions[never + dripping :]:
                ping(session)
            time.sleep(1 / PINGS_PER_S)
        for session in sessions[never : never + dripping]:
            drip(session)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[3:]]
    main(int(sys.argv[1]), Path(sys.argv[2]), *numbers)
