"""Authentication: JSON Web Tokens, the keys that verify them, and the permissions that they carry.

tokens        verification of JSON Web Tokens
scopes        the permissions that a token may carry
base64url     the encoding of bytes in keys and signatures
jwks          JSON Web Key Sets
jwks_client   fetching a key set from a URL
jwks_refresh  waiting for newly published keys
revocations   tokens that are no longer valid
token_report  the content of a token, and the reasons to refuse it
"""
