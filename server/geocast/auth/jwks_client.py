"""An HTTP client that fetches a key set from a URL (`--keys https://…`), with limits on time and size.

The client sends one GET request to the configured address, and follows no redirects. Certificates are checked against
the system's certificate authorities, or against those in the variables SSL_CERT_FILE and SSL_CERT_DIR, which OpenSSL
reads.
"""

import asyncio
import ssl
from pathlib import Path

import h11

from .. import __version__
from ..model.errors import ConfigError
from ..model.server_address import KeyUrl
from .tokens import Key, load_keys, parse_keys, published

FETCH_S = 10.0  # the time limit for name resolution, connection, TLS, request and response together
MAX_ANSWER_BYTES = 256 * 1024  # the largest response, with its head; a large key set has about 20,000 bytes
_CHUNK = 64 * 1024


def keys_at(where: Path | KeyUrl) -> dict[str, Key]:
    """Return the keys in a file, or at a URL, as a dict from `kid` to key.

    Raise ConfigError if they can't be read or are not valid.
    """
    return parse_keys(asyncio.run(fetch_keys(where)), where) if isinstance(where, KeyUrl) else load_keys(where)


async def fetch_keys(url: KeyUrl) -> bytes:
    """Fetch a key set from a URL, and return it without unusable keys (see `tokens.published`).

    Raise ConfigError if the set can't be fetched or has no usable key.
    """
    try:
        async with asyncio.timeout(FETCH_S):
            # Read the certificate authorities in a thread, because this takes 30 ms.
            tls = await asyncio.to_thread(ssl.create_default_context) if url.tls else None
            return published(await _get(url, tls), url)
    except TimeoutError:
        raise ConfigError(f"keys {url}: no complete response within {FETCH_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"keys {url}: its certificate is not valid: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ConfigError(f"keys {url}: TLS failed: {error.reason}") from None
    except OSError as error:
        raise ConfigError(f"keys {url}: can't be reached: {error.strerror or error}") from None
    except h11.RemoteProtocolError:
        raise ConfigError(f"keys {url}: its response is not valid HTTP/1.1, or is incomplete") from None


async def _get(url: KeyUrl, tls: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection(url.server.host, url.server.port, ssl=tls)
    try:
        http = h11.Connection(h11.CLIENT)
        headers = [("Host", str(url.server)), ("Accept", "application/jwk-set+json, application/json")]
        headers += [("Accept-Encoding", "identity"), ("User-Agent", f"geocast/{__version__}"), ("Connection", "close")]
        request = h11.Request(method="GET", target=url.target, headers=headers)
        writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        return await _answer(http, reader, url)
    finally:
        writer.transport.abort()


async def _answer(http: h11.Connection, reader: asyncio.StreamReader, url: KeyUrl) -> bytes:
    """Return the body of a 200 response. Raise ConfigError for any other status."""
    received, body = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_CHUNK)
            received += len(data)
            if received > MAX_ANSWER_BYTES:
                raise ConfigError(f"keys {url}: its response is longer than {MAX_ANSWER_BYTES // 1024} KiB")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                said = " (redirects are not followed: give the final URL)" if 300 <= event.status_code < 400 else ""
                raise ConfigError(f"keys {url}: answered {event.status_code}, not 200{said}")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return body
