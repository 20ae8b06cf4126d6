"""A server that sends each message that it receives at the path /publish to all connections at the path /.

It uses publish/subscribe of uWebSockets. Usage: `python uws_server.py PORT`.
"""

import resource
import sys

from socketify import App, CompressOptions, OpCode

TOPIC = "alerts"
COMMON = {
    "compression": CompressOptions.DISABLED,
    "max_payload_length": 16 * 1024,
    "idle_timeout": 0,
    "send_pings_automatically": False,
}


def main(port: int) -> None:
    """Serve on this port until killed."""
    app = App()
    subscribe = {"open": lambda session: session.subscribe(TOPIC), "message": lambda _session, _message, _opcode: None}
    publish = {"message": lambda _session, message, _opcode: app.publish(TOPIC, message, OpCode.TEXT)}
    app.ws("/", COMMON | subscribe)
    app.ws("/publish", COMMON | publish)
    app.listen({"port": port, "host": "127.0.0.1"}, lambda _config: None)
    app.run()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    main(int(sys.argv[1]))
