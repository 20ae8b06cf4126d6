"""Who somebody is: JSON Web Tokens, the keys that verify them, and what they allow.

tokens        JWT -> claims that are verified
scopes        what a token may allow
base64url     the spelling of bytes in keys and signatures
jwks          JSON Web Key Sets
jwks_client   a key set, fetched from a URL
jwks_refresh  waiting for a key set that was published a moment ago
revocations   tokens that are no longer valid
token_report  what a token says, and why it would be refused
"""
