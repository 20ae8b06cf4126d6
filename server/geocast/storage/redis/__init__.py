"""A Redis server as the alert log and the store of devices use it: its address, its primary, and durable writes."""
