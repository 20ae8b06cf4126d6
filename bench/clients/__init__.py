"""The clients of the benchmarks: a crowd of sessions that uses little CPU, publishers, and misbehaving clients."""
