"""A set of keys from the server that publishes it (`--keys https://…`): one GET, bounded in all that a server decides.

It goes to the very address that is configured: a redirect is refused. Certificates are checked against the system's
authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR, which OpenSSL reads.
"""

import asyncio
import ssl
from pathlib import Path

import h11

from .. import __version__
from ..config import KeyUrl
from ..errors import ConfigError
from .tokens import Key, load_keys, parse_keys, published

FETCH_S = 10.0  # for all of it: to look the name up, to connect, to ask, to be answered
MAX_ANSWER_BYTES = 256 * 1024  # of an answer, its head included; a large set has some 20,000
_CHUNK = 64 * 1024


def keys_at(where: Path | KeyUrl) -> dict[str, Key]:
    """The keys of a file, or those that are published at a URL, by `kid`. Raises ConfigError."""
    return parse_keys(asyncio.run(fetch_keys(where)), where) if isinstance(where, KeyUrl) else load_keys(where)


async def fetch_keys(url: KeyUrl) -> bytes:
    """The JWKS that is published there, less what can't be used (`tokens.published`). Raises ConfigError."""
    try:
        async with asyncio.timeout(FETCH_S):
            # To read all authorities takes 30 ms, in which a loop that has sessions would stand still.
            tls = await asyncio.to_thread(ssl.create_default_context) if url.tls else None
            return published(await _get(url, tls), url)
    except TimeoutError:
        raise ConfigError(f"keys {url}: no whole answer within {FETCH_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"keys {url}: its certificate is not good: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ConfigError(f"keys {url}: no TLS with it: {error.reason}") from None
    except OSError as error:
        raise ConfigError(f"keys {url}: can't be reached: {error.strerror or error}") from None
    except h11.RemoteProtocolError:
        raise ConfigError(f"keys {url}: its answer is not HTTP/1.1, or is cut off") from None


async def _get(url: KeyUrl, tls: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection(url.server.host, url.server.port, ssl=tls)
    try:
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method="GET",
            target=url.target,
            headers=[
                ("Host", str(url.server)),
                ("Accept", "application/jwk-set+json, application/json"),
                ("Accept-Encoding", "identity"),
                ("User-Agent", f"geocast/{__version__}"),
                ("Connection", "close"),
            ],
        )
        writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        return await _answer(http, reader, url)
    finally:
        writer.transport.abort()


async def _answer(http: h11.Connection, reader: asyncio.StreamReader, url: KeyUrl) -> bytes:
    """The body of a 200. Raises ConfigError for any other status."""
    received, body = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_CHUNK)
            received += len(data)
            if received > MAX_ANSWER_BYTES:
                raise ConfigError(f"keys {url}: its answer is longer than {MAX_ANSWER_BYTES // 1024} KiB")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                said = " (redirects are not followed: give the address)" if 300 <= event.status_code < 400 else ""
                raise ConfigError(f"keys {url}: answered {event.status_code}, not 200{said}")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return body
