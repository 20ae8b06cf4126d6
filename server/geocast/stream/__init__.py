"""The stream side of a process: the WebSocket sessions, the live alerts, and the fan-out of alerts to sessions.

A *row* is the number by which a process identifies one recipient: a WebSocket session or a push device.

fanout            decides which recipients are sent which alert, and tracks what each of them still has to be sent
flights           the alerts that are on their way to recipients, and the order in which they are sent
hub               manages all sessions of the process: encoding, writing, heartbeats
session           the conversation with one subscriber, without a socket
live_alerts       the live alerts: which recipients were sent which of them, and when each ends
delivery_flags    the flags of one alert: which recipients were sent which revision of it
compact_revision  a compact form in bytes for a revision, which is used after its fan-out
log_reader        reads the log continuously, and tracks whether the log can be used
server            starts, drains and maintains the stream side
connection        one WebSocket connection, and the listener
handshake         accepts the handshakes of ordinary clients, without the parser of the library
work_queue        queues in which frames wait that would delay alerts
bulk_send         sends one frame to many sockets with one system call
own_tests         makes the test alerts that subscribers ask for
"""
