"""Benchmarks of geocast, and of other servers that push messages to many sockets. The results are in README.md."""
