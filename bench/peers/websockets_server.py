"""A server that broadcasts each payload from the control port to all connections.

Usage: `python websockets_server.py STREAM_PORT CONTROL_PORT`.
"""

import asyncio
import contextlib
import logging
import resource
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

connections: set[ServerConnection] = set()


async def stay(connection: ServerConnection) -> None:
    """Keep a subscriber in `connections` until its connection closes."""
    connections.add(connection)
    try:
        await connection.wait_closed()
    finally:
        connections.discard(connection)


async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read payloads from the control port, and broadcast each to all connections."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            size = int.from_bytes(await reader.readexactly(4), "little")
            broadcast(connections, (await reader.readexactly(size)).decode())
    writer.close()


async def main(stream_port: int, control_port: int) -> None:
    """Serve on these ports until killed."""
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.CRITICAL)
    async with (
        serve(stay, "127.0.0.1", stream_port, compression=None, ping_interval=None, logger=quiet, backlog=4096),
        await asyncio.start_server(obey, "127.0.0.1", control_port) as control,
    ):
        await control.serve_forever()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
