"""Connections to hosts that somebody else chose: only to addresses that are global, or that the operator allows.

`geocast push`, `geocast fetch` and `geocast relay` use it. A host name is resolved once, its addresses are checked, and
the connection is made to a checked address. So nobody can lead a process to an internal service by a name (SSRF).

host_addresses          which addresses may be connected to, and a cache of the addresses of host names
post_client, http1      POST requests over persistent connections
tls                     certificate authorities that the operator trusts for one host
outcomes, http_times    the outcomes of POST requests; times in header fields of answers
"""
