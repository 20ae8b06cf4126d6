"""What is in force in a process and may change while it runs: keys, revoked tokens, the policy, who may do what.

(BA2, BA3. That is publishers, reviewers, and the sources of messages of CAP. And the keys that calls are sealed by.)

Rule 1  All or none. All files are read, then all of it is parsed, and only then is it put in force, in one go: no
        token and no request is judged by a mix.
Rule 2  The processes of a node can't differ. One reads and parses, and hands on the bytes that it has read; the others
        parse the same bytes, which can't fail. A copy of a file that is read again later could be another.
Rule 3  Nothing is let go of before there is something to put in its place: what can't be read or used leaves all in
        force as it was, in one line for the operator and one more of `geocast_reloads_total{result="failed"}`.
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
from ..config import KeyUrl, Settings
from ..errors import ConfigError, trace
from ..metrics import counters, gauge, gauges
from ..policy import Policy
from ..policy.publishers.bounds import Publishers
from ..policy.publishers.file import parse_publishers, read_publishers

if TYPE_CHECKING:
    from ..ingest.cap.sources import CapSources
    from ..ingest.cap.zones import Zones

logger = logging.getLogger(__name__)

DIGEST_BYTES = 6  # of a SHA-256: a float, which a metric is, holds every integer of so many


# What the processes of a node hand each other lies in a file, and stays there when a node is killed. It holds the keys
# of calls, of which no copy may outlive the file of `--call-keys` (RZ5). So it is sealed by a key that is in no file;
# the processes have it because they are forked.
_BETWEEN = AESGCM(AESGCM.generate_key(256))


class RawConfig(NamedTuple):
    """What was read, before it is parsed. None: there is no such file.

    Then nothing is revoked, the policy is built in, publishers are all alike, no messages of CAP are taken,
    nobody's signature counts, and nothing can be sealed.
    """

    keys: bytes
    revoked: bytes | None
    policy: bytes | None
    publishers: bytes | None = None
    cap_sources: bytes | None = None
    reviewers: bytes | None = None
    call_keys: bytes | None = None


class ParsedConfig(NamedTuple):
    """The same, ready to be put in force."""

    keys: Mapping[str, Key]
    revoked: Mapping[str, float]
    policy: Policy
    publishers: Publishers | None
    sources: "CapSources | None"
    reviewers: Reviewers
    call_keys: CallKeys


class RuntimeConfig:
    """What is in force in this process. `tokens` and `trust` stay the same; all else is another after a reload."""

    def __init__(self, settings: Settings, keys: bytes = b"", *, opens_calls: bool = True) -> None:
        """Read it for the first time. `keys`: the JWKS where `--keys` is not given. Raises ConfigError.

        `opens_calls`: it is a node's, where the policy may not have calls without a key to seal them by.
        """
        if isinstance(settings.keys, KeyUrl):
            # In a loop of asyncio's own, not in uvloop's: it leaves no thread behind, which a fork would not survive.
            keys = asyncio.run(fetch_keys(settings.keys))
        self._settings, self._opens_calls = settings, opens_calls
        self._file = settings.keys if isinstance(settings.keys, Path) else None
        self._watchers: list[Callable[[], None]] = []
        self._results = {"ok": 0, "failed": 0}
        self._read_at = time.time()
        self._texts = self._read(keys)
        self._parsed_now = self._parsed(self._texts)
        self.tokens = TokenVerifier(self._parsed_now.keys, self._parsed_now.revoked, required=settings.keys is not None)
        self.zones = _zones(settings.cap_zones)  # read at the start only: they take seconds
        self.aeds = NO_AEDS if settings.aeds is None else read_aeds(settings.aeds)  # RI4: and so are these
        self.trust = ApprovalVerifier(self._parsed_now.policy, self._parsed_now.reviewers)
        self._warn()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called each time that something else has come into force."""
        self._watchers.append(changed)

    def reload(self, share: Callable[[bytes], None] = lambda _packed: None) -> None:
        """Read everything anew: all of it, or none (Rules 1 and 3). It never raises.

        `share` is called with what the other processes of the node are to `take`, before it is in force here. Whatever
        it raises has the reload fail.
        """
        results, now = self._results | {"ok": self._results["ok"] + 1}, time.time()
        try:
            changes = self._handed_on(self._read(self._texts.keys), results, now, share)
        except Exception as error:
            logger.error("reload failed, all stays as it was: %s", _said(error))
            self._results["failed"] += 1
            with contextlib.suppress(OSError):
                share(_packed(self._texts, self._results, self._read_at))
        else:
            self._results, self._read_at = results, now
            logger.info("reloaded: %s", changes)
            self._warn()

    def take_keys(self, keys: bytes, share: Callable[[bytes], None] = lambda _packed: None) -> None:
        """Have in force the keys that were fetched from a URL, which are good; all else stays. It never raises."""
        try:
            changes = self._handed_on(self._texts._replace(keys=keys), self._results, self._read_at, share)
        except Exception as error:
            logger.error("the keys that were fetched can't be put in force: %s", _said(error))
        else:
            logger.info("fetched: %s", changes)

    @property
    def policy(self) -> Policy:
        """What may be published, by whoever may publish."""
        return self._parsed_now.policy

    @property
    def publishers(self) -> Publishers | None:
        """Who may publish, and what each; None: all alike."""
        return self._parsed_now.publishers

    @property
    def sources(self) -> "CapSources | None":
        """Who may send messages of CAP; None: nobody, and there is nowhere to send them."""
        return self._parsed_now.sources

    @property
    def reviewers(self) -> Reviewers:
        """Whose signatures count, by the `kid` of the key."""
        return self._parsed_now.reviewers

    @property
    def call_keys(self) -> CallKeys:
        """What calls are sealed by, and opened."""
        return self._parsed_now.call_keys

    @property
    def keys(self) -> bytes:
        """The JWKS in force, as it was read."""
        return self._texts.keys

    def take(self, packed: bytes) -> None:
        """Have the same in force as the process that has shared this (Rule 2)."""
        nonce, sealed = packed[:NONCE_BYTES], packed[NONCE_BYTES:]
        texts, self._results, self._read_at = msgpack.unpackb(_BETWEEN.decrypt(nonce, sealed, None))
        self._put_in_force(RawConfig(*texts), self._parsed(RawConfig(*texts)))

    def metrics(self) -> Iterator[Metric]:
        """Of what is in force, for Prometheus. One process of a node shows them."""
        text = "Times that keys, revoked tokens, policy, who may do what, and call keys were read anew"
        yield counters("reloads", text, "result", self._results.items())
        yield gauge("last_reload_timestamp_seconds", "When what is in force was read", self._read_at)
        yield gauge("keys", "Keys in force", len(self.tokens.keys))
        yield gauge("aeds", "Defibrillators that may be used", len(self.aeds))
        yield gauge("aeds_unusable", "Records of --aeds that can't be used", self.aeds.unusable)
        digests = [(name, float(_digest(text))) for name, text in self._texts._asdict().items()]
        yield gauges("settings_digest", "The same number for the same file, to compare nodes by", "file", digests)

    def _warn(self) -> None:
        warnings = self.policy.warnings()
        if self.publishers is not None:
            warnings += self.publishers.warnings(self.policy.categories)
        for warning in warnings:
            logger.warning("%s", warning)

    # ---- the pieces ------------------------------------------------------------------------------------------

    def _read(self, keys: bytes) -> RawConfig:
        """What the files hold. `keys`: those of no file."""
        settings, read = self._settings, _read("keys", self._file)
        return RawConfig(
            keys if read is None else read,
            _read("revoked", settings.revoked),
            policy.read(settings.policy),
            read_publishers(settings.publishers),
            _read("cap-sources", settings.cap_sources),
            _read("reviewers", settings.reviewers),
            _read("call-keys", settings.call_keys),
        )

    def _handed_on(
        self, texts: RawConfig, results: Mapping[str, int], read_at: float, share: Callable[[bytes], None]
    ) -> str:
        """Parse it, share it, and only then put it in force here. Returns what has changed, in numbers."""
        parsed = self._parsed(texts)
        share(_packed(texts, results, read_at))
        return self._put_in_force(texts, parsed)

    def _parsed(self, texts: RawConfig) -> ParsedConfig:
        settings = self._settings
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

    def _put_in_force(self, texts: RawConfig, parsed: ParsedConfig) -> str:
        """Returns what has changed, in numbers."""
        before, had, had_keys = self._texts, self._parsed_now, self.tokens.keys
        if texts != before:
            self.tokens.replace(parsed.keys, parsed.revoked)
            self._texts, self._parsed_now = texts, parsed
            self.trust.replace(parsed.policy, parsed.reviewers)
            for changed in self._watchers:
                changed()
        now = self._parsed_now
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
    logger.info("zones: %s; read in %.1f s", zones.summary(), time.monotonic() - started)
    return zones


def _sources(text: bytes, path: Path | None) -> "CapSources":
    from ..ingest.cap.sources import parse  # it knows how names are written in XML, and so is dear to import

    return parse(text, path)


def _said(error: Exception) -> str:
    """What the operator is told of an error: the line that was made for it, or where it came from."""
    return str(error) if isinstance(error, ConfigError | OSError) else trace(error)


def _packed(texts: RawConfig, results: Mapping[str, int], read_at: float) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _BETWEEN.encrypt(nonce, msgpack.packb((texts, results, read_at)), None)


def _read(name: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} {path}: {error.strerror}") from None


def _difference(what: str, before: Set[Any], after: Set[Any]) -> str:
    return f"{what}: {len(after - before)} added, {len(before - after)} removed, {len(after)} in force"


def _digest(text: bytes | None) -> int:
    """A number for a file; 0 without one."""
    return 0 if text is None else int.from_bytes(hashlib.sha256(text).digest()[:DIGEST_BYTES])
