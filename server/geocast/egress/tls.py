"""TLS contexts that trust the system's certificate authorities, and those that the operator adds for one host."""

import functools
import ssl


@functools.cache
def system_tls() -> ssl.SSLContext:
    """Return a TLS context that trusts the system's certificate authorities. It takes 1 MB, so everybody shares it."""
    return ssl.create_default_context()


def tls_trusting(certificates: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's certificate authorities, and those in `certificates` (PEM).

    Raise ValueError if there are none.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError):
        raise ValueError("no certificates in PEM") from None
    return context
