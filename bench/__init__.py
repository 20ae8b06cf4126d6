"""Measures geocast on this machine, beside others that push to many sockets. See README.md."""
