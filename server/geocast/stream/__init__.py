"""The stream of a process: its sessions, the live alerts, and the fan-out.

hub               all sessions of the process; who is sent what
session           the conversation with one subscriber, without a socket
live_alerts       the alerts that are live, and when each ends
delivery_flags    which subscribers were sent which revision
compact_revision  a revision in few bytes, while no subscriber here needs it
log_reader        how a process follows the log
server            keeps the sessions, sweeps, drains
connection        one WebSocket connection
bulk_send         one frame to many sockets
"""
