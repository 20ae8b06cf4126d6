"""The benchmarks of geocast: measurements on this machine, beside other servers that push to many sockets.

README.md has the results.
"""
