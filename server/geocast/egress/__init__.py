"""Connections to hosts that somebody else chose: only to addresses that are global, or that the operator allows.

`geocast push` and `geocast fetch` use it. A host name is resolved once, its addresses are checked, and the connection
is made to a checked address. So nobody can lead a process to an internal service by a name (SSRF).
"""
