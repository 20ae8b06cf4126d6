"""What the server works on, as plain data: alerts, entries of calls, languages, problems, close codes.

alert        an alert as it was accepted: published shapes only
members      the members of an alert, by which it is stored, signed and sent
call         the entries of a call in the log
languages    which of its texts an alert is sent in
problems     every response that is not a success
close_codes  every WebSocket close code: value, text, and whether a client reconnects
"""
