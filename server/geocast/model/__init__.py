"""The plain data that the server works on: alerts, entries of calls, languages, problems, close codes.

alert        an alert as it was accepted: published shapes only
members      the list of an alert's members, by which alerts are stored, signed and sent
call         the entries of a call in the log
languages    which of an alert's texts a subscriber is sent
problems     every HTTP response that is not a success
close_codes  every WebSocket close code: value, text, and whether a client reconnects
"""
