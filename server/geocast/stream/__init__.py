"""The stream of a process: its sessions, the live alerts, and the fan-out.

fanout            which row is sent which alert, and what each row is still owed; a row is a session or a push device
hub               all sessions of the process: encoding, writing, heartbeats
session           the conversation with one subscriber, without a socket
live_alerts       the live alerts, their flags for each session, and when each ends
delivery_flags    which sessions were sent which revision of one alert
compact_revision  a revision in few bytes, after its fan-out
log_reader        reading the log for ever, and whether the log can be used
server            start, drain and upkeep of the stream side
connection        one WebSocket connection, and the listener
bulk_send         one frame to many sockets with one system call
"""
