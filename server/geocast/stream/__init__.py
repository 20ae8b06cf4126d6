"""The stream of a process: its sessions, the live alerts, and the fan-out.

fanout            which row is sent what, and what each row is still owed; a row is a session or a push device
hub               all sessions of the process: encoding, writing, heartbeats
session           the conversation with one subscriber, without a socket
live_alerts       the alerts that are live, and when each ends
delivery_flags    which subscribers were sent which revision
compact_revision  a revision in few bytes, while no subscriber here needs it
log_reader        how a process follows the log
server            keeps the sessions, sweeps, drains
connection        one WebSocket connection
bulk_send         one frame to many sockets
"""
