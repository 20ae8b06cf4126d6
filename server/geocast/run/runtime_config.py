"""The configuration that a process can reload while it runs.

It consists of token keys, revoked tokens, the policy, publishers, reviewers, sources of CAP messages, and the keys that
encrypt calls (BA2, BA3). The configuration *in force* is the one in use.

Rule 1  A reload changes everything or nothing. All files are read, then all are parsed, and only then is everything put
        in force, in one step. No token and no request is checked by a mix of old and new.
        Example: a new policy demands two approvals, and a new file of reviewers has the second reviewer. If the policy
        were applied first, nobody could publish for a moment.
Rule 2  All processes of a node have the same configuration. One process reads and parses the files and passes on the
        bytes that it has read. The others parse the same bytes, which can't fail. If each process read the files
        itself, a file could change between two of these reads.
Rule 3  A failed reload changes nothing. If a file can't be read or used, the present configuration stays in force, one
        log line gives the reason, and the counter `geocast_reloads_total{result="failed"}` is increased.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client.core import Metric

from .. import policy
from ..approvals.reviewers import NO_REVIEWERS, Reviewers, parse_reviewers, refuse_misfits
from ..approvals.verifier import ApprovalVerifier
from ..auth.jwks_client import fetch_keys
from ..auth.revocations import parse_revoked
from ..auth.tokens import Key, TokenVerifier, parse_keys
from ..calls.aeds import NO_AEDS, read_aeds
from ..calls.encryption import NO_CALL_KEYS, NONCE_BYTES, CallKeys, parse_call_keys, refuse_unsealed
from ..config import FollowerSettings
from ..metrics import counters, gauge, gauges
from ..model.errors import text_of
from ..model.server_address import KeyUrl
from ..model.toml_file import read_file
from ..policy import Policy
from ..policy.publishers.bounds import Publishers
from ..policy.publishers.file import parse_publishers, read_publishers

if TYPE_CHECKING:
    from ..ingest.cap.sources import CapSources
    from ..ingest.cap.zones import Zones

logger = logging.getLogger(__name__)

DIGEST_BYTES = 6  # number of bytes of a SHA-256 in a metric: a float can represent them exactly


# The processes of a node pass the configuration to each other in a file, which remains if the node is killed. The
# configuration contains the keys of calls, and no copy of them may outlive the file that `--call-keys` names (RZ5). So
# the configuration is encrypted with a key that exists only in memory. All processes have this key because they are
# forked from one process.
_BETWEEN = AESGCM(AESGCM.generate_key(256))


class RawConfig(NamedTuple):
    """The contents of the configuration files as bytes. None means that the file is not configured.

    This is what a missing file means: without `revoked`, no token is revoked. Without `policy`, the built-in policy is
    used. Without `publishers`, all publishers have the same rights. Without `cap_sources`, no CAP messages are
    accepted. Without `reviewers`, no reviewer's signature counts. Without `call_keys`, calls can't be encrypted.
    """

    keys: bytes
    revoked: bytes | None
    policy: bytes | None
    publishers: bytes | None = None
    cap_sources: bytes | None = None
    reviewers: bytes | None = None
    call_keys: bytes | None = None


class ParsedConfig(NamedTuple):
    """The parsed contents of the configuration files, ready to be applied."""

    keys: Mapping[str, Key]
    revoked: Mapping[str, float]
    policy: Policy  # what may be published at all
    publishers: Publishers | None  # what each may publish; None if all have the same rights
    sources: "CapSources | None"  # from whom CAP messages are accepted; None if there is no HTTP route for them
    reviewers: Reviewers  # whose signatures count, by the key ids (`kid`) of their keys
    call_keys: CallKeys  # encrypt and decrypt calls


class RuntimeConfig:
    """The configuration *in force* (the one that this process uses), and how to reload it.

    `now` has the files' contents. A reload replaces it, and changes the contents of the objects `tokens` and `trust`.
    """

    def __init__(self, settings: FollowerSettings, keys: bytes = b"", *, opens_calls: bool = True) -> None:
        """Read all files for the first time. Raise ConfigError if a file can't be read or used.

        `keys` is the key set (JWKS) to use if the option `--keys` is not given. If `opens_calls` is true, this process
        is a node, and its policy may allow calls only if there is a key to encrypt them.
        """
        if isinstance(settings.keys, KeyUrl):
            # Use a loop of asyncio, not of uvloop, which would leave a thread. A process with threads must not fork.
            keys = asyncio.run(fetch_keys(settings.keys))
        self.settings, self._opens_calls = settings, opens_calls
        self._file = settings.keys if isinstance(settings.keys, Path) else None
        self._watchers: list[Callable[[], None]] = []
        self._results = {"ok": 0, "failed": 0}
        self._read_at = time.time()
        self._texts = self._read(keys)
        self.now = self._parsed(self._texts)
        self.tokens = TokenVerifier(self.now.keys, self.now.revoked, required=settings.keys is not None)
        self.zones = _zones(settings.cap_zones)  # read only at the start, because reading takes seconds
        self.aeds = NO_AEDS if settings.aeds is None else read_aeds(settings.aeds)  # read only at the start (RI4)
        self.trust = ApprovalVerifier(self.now.policy, self.now.reviewers)
        self._warn()

    def watch(self, changed: Callable[[], None]) -> None:
        """Register a function that is called whenever the configuration in force has changed."""
        self._watchers.append(changed)

    def reload(self, share: Callable[[bytes], None] = lambda _packed: None) -> None:
        """Read all files again and apply either all of them or none (Rules 1 and 3). Never raise an exception.

        Before the new configuration is applied here, `share` is called with bytes that the other processes pass to
        `take`. If `share` raises an exception, the reload fails.
        """
        results, now = self._results | {"ok": self._results["ok"] + 1}, time.time()
        try:
            changes = self._share_and_apply(self._read(self._texts.keys), results, now, share)
        except Exception as error:
            logger.error("the reload failed, so nothing has changed: %s", text_of(error))
            self._results["failed"] += 1
            with contextlib.suppress(OSError):
                share(_packed(self._texts, self._results, self._read_at))
        else:
            self._results, self._read_at = results, now
            logger.info("the configuration was reloaded: %s", changes)
            self._warn()

    def take_keys(self, keys: bytes, share: Callable[[bytes], None] = lambda _packed: None) -> None:
        """Apply a key set that was fetched from a URL and checked, and leave everything else as it is.

        Never raise an exception.

        Before the keys are applied here, `share` is called with bytes that the other processes pass to `take`.
        """
        try:
            changes = self._share_and_apply(self._texts._replace(keys=keys), self._results, self._read_at, share)
        except Exception as error:
            logger.error("signing keys: fetched ones can't be used, so the old ones stay valid: %s", text_of(error))
        else:
            logger.info("signing keys: new keys were fetched; %s", changes)

    @property
    def keys(self) -> bytes:
        """The key set (JWKS) in force, as the bytes that were read."""
        return self._texts.keys

    def take(self, packed: bytes) -> None:
        """Apply a configuration that another process has read.

        `packed` is the form in which that process has shared it (Rule 2).
        """
        nonce, sealed = packed[:NONCE_BYTES], packed[NONCE_BYTES:]
        texts, self._results, self._read_at = msgpack.unpackb(_BETWEEN.decrypt(nonce, sealed, None))
        self._apply(RawConfig(*texts), self._parsed(RawConfig(*texts)))

    def metrics(self) -> Iterator[Metric]:
        """Yield metrics about the configuration for Prometheus. Only one process of a node exposes them."""
        text = "Times that keys, revoked tokens, policy, who may do what, and call keys were read anew"
        yield counters("reloads", text, "result", self._results.items())
        yield gauge("last_reload_timestamp_seconds", "When what is in force was read", self._read_at)
        yield gauge("keys", "Keys in force", len(self.tokens.keys))
        yield gauge("aeds", "Defibrillators that may be used", len(self.aeds))
        yield gauge("aeds_unusable", "Records of --aeds that can't be used", self.aeds.unusable)
        digests = [(name, float(_digest(text))) for name, text in self._texts._asdict().items()]
        yield gauges("settings_digest", "The same number for the same file, to compare nodes by", "file", digests)

    def _warn(self) -> None:
        warnings = self.now.policy.warnings(takes_cap=self._texts.cap_sources is not None)
        if self.now.publishers is not None:
            warnings += self.now.publishers.warnings(self.now.policy.categories)
        for warning in warnings:
            logger.warning("%s", warning)

    # ---- reading, parsing and applying the files -------------------------------------------------------------

    def _read(self, keys: bytes) -> RawConfig:
        """Read all files, and return their contents. `keys` is the key set (JWKS) to use if it is not in a file."""
        settings, read = self.settings, _read("keys", self._file)
        return RawConfig(
            keys if read is None else read,
            _read("revoked", settings.revoked),
            policy.read(settings.policy),
            read_publishers(settings.publishers),
            _read("cap-sources", settings.cap_sources),
            _read("reviewers", settings.reviewers),
            _read("call-keys", settings.call_keys),
        )

    def _share_and_apply(
        self, texts: RawConfig, results: Mapping[str, int], read_at: float, share: Callable[[bytes], None]
    ) -> str:
        """Parse these file contents, share them with other processes, and then apply them here.

        Return a summary of the changes. Raise an exception, and apply nothing, if parsing or sharing fails.
        """
        parsed = self._parsed(texts)
        share(_packed(texts, results, read_at))
        return self._apply(texts, parsed)

    def _parsed(self, texts: RawConfig) -> ParsedConfig:
        settings = self.settings
        parsed = ParsedConfig(
            parse_keys(texts.keys, settings.keys),
            {} if texts.revoked is None else parse_revoked(texts.revoked, settings.revoked),
            policy.parse(texts.policy, settings.policy),
            None if texts.publishers is None else parse_publishers(texts.publishers, settings.publishers),
            None if texts.cap_sources is None else _sources(texts.cap_sources, settings.cap_sources),
            NO_REVIEWERS if texts.reviewers is None else parse_reviewers(texts.reviewers, settings.reviewers),
            NO_CALL_KEYS if texts.call_keys is None else parse_call_keys(texts.call_keys, settings.call_keys),
        )
        refuse_misfits(parsed.reviewers, parsed.policy, (key.key for key in parsed.keys.values()))
        if self._opens_calls:
            refuse_unsealed(parsed.call_keys, parsed.policy.calls)
        return parsed

    def _apply(self, texts: RawConfig, parsed: ParsedConfig) -> str:
        """Apply the parsed file contents in this process. Return a summary of the changes."""
        before, had, had_keys = self._texts, self.now, self.tokens.keys
        if texts != before:
            self.tokens.replace(parsed.keys, parsed.revoked)
            self._texts, self.now = texts, parsed
            self.trust.replace(parsed.policy, parsed.reviewers)
            for changed in self._watchers:
                changed()
        now = self.now
        return "; ".join(
            [
                _difference("keys", had_keys.items(), self.tokens.keys.items()),
                _difference("revocations", had.revoked.items(), now.revoked.items()),
                f"policy {_changed(had.policy, now.policy)}",
                f"publishers {_changed(before.publishers, self._texts.publishers)}",
                f"sources {_changed(had.sources, now.sources)}",
                _difference("reviewers' keys", had.reviewers.items(), now.reviewers.items()),
                f"call keys {_changed(before.call_keys, self._texts.call_keys)}",
            ]
        )


def _changed(before: object, after: object) -> str:
    return "unchanged" if before == after else "changed"


def _zones(paths: Sequence[Path]) -> "Zones":
    from ..ingest.cap.zones import NO_ZONES, read_zones

    if not paths:
        return NO_ZONES
    started = time.monotonic()
    zones = read_zones(paths)
    logger.info("CAP zones: %s; reading them took %.1f s", zones.summary(), time.monotonic() - started)
    return zones


def _sources(text: bytes, path: Path | None) -> "CapSources":
    from ..ingest.cap.sources import parse  # a slow import: it needs the XML library

    return parse(text, path)


def _packed(texts: RawConfig, results: Mapping[str, int], read_at: float) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _BETWEEN.encrypt(nonce, msgpack.packb((texts, results, read_at)), None)


def _read(name: str, path: Path | None) -> bytes | None:
    return None if path is None else read_file(name, path)


def _difference(what: str, before: Set[Any], after: Set[Any]) -> str:
    return f"{what}: {len(after - before)} added, {len(before - after)} removed, {len(after)} in force"


def _digest(text: bytes | None) -> int:
    """Return a number that stands for a file's contents: equal contents have equal numbers.

    It is 0 if there is no file.
    """
    return 0 if text is None else int.from_bytes(hashlib.sha256(text).digest()[:DIGEST_BYTES])
