"""The messages that the server receives and sends: bytes, fields, and whole requests.

strict_json  bytes -> one strictly parsed dict
fields       the type of each field, and the error text of an invalid one
requests     the requests of publishers; the exact place that they contain goes no further
output       the types of what the server sends
frames       an alert -> WebSocket frames, once per wire format
"""
