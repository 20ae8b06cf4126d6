"""The stream of a process: its sessions, the live alerts, and the fan-out.

A *row* is the number by which a process knows one recipient: a WebSocket session or a push device.

fanout            which row is sent which alert, and what each row still has to be sent
hub               all sessions of the process: encoding, writing, heartbeats
session           the conversation with one subscriber, without a socket
live_alerts       the live alerts, which rows were sent which of them, and when each ends
delivery_flags    which rows were sent which revision of one alert
compact_revision  a revision in few bytes, after its fan-out
log_reader        reading the log continuously, and whether the log can be used
server            start, drain and upkeep of the stream side
connection        one WebSocket connection, and the listener
bulk_send         one frame to many sockets with one system call
"""
