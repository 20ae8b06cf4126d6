"""The messages that the server receives and sends: bytes, fields, and whole requests.

strict_json  bytes -> one strict map
fields       the type of each field, and the error text of an invalid one
requests     the requests of publishers; the exact place ends here
output       the types of what the server sends
frames       an alert -> WebSocket frames, once per wire format
"""
