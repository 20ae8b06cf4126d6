"""What comes in and goes out, byte by byte and field by field.

strict_json  bytes -> one strict map
fields       the type of each field, and the error text of an invalid one
requests     what publishers send; the exact place ends here
output       the types of what the server sends
frames       an alert -> WebSocket frames, once per wire format
"""
