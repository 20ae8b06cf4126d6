"""The messages that the server receives and sends: bytes, fields, and whole requests.

strict_json  parses bytes strictly, into one dict
fields       the types of the fields, and the errors for invalid fields
requests     parses the requests of publishers, and removes the exact place from them
output       the types of the messages that the server sends
frames       encodes an alert as WebSocket frames, once for each wire format
"""
