"""Where sockets are: the api listener (HTTP) and the stream listener (WebSocket)."""
