"""The clients of a measurement: a crowd that costs little, publishers, and clients that misbehave."""
