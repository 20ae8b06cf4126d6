"""The clients of a measurement: a crowd that uses little CPU, publishers, and misbehaving clients."""
