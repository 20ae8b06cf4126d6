"""What is in force in a process and may change while it runs: keys, revoked tokens and the policy (BA2, BA3).

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
import time
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
from jwt import PyJWK
from prometheus_client.core import Metric

from .. import policy
from ..config import KeyUrl, Settings
from ..errors import ConfigError, trace
from ..metrics import counters, gauge, gauges
from ..net.key_server import fetch_keys
from ..policy import Policy
from ..revoked import parse_revoked
from ..tokens import Tokens, parse_keys

logger = logging.getLogger(__name__)

DIGEST_BYTES = 6  # of a SHA-256: a float, which a metric is, holds every integer of so many


class Texts(NamedTuple):
    """What was read, before it is parsed. None: there is no such file. Nothing is revoked; the policy is built in."""

    keys: bytes
    revoked: bytes | None
    policy: bytes | None


class InForce:
    """What is in force in this process. `tokens` stays the same object; `policy` is another after a reload."""

    def __init__(self, settings: Settings, keys: bytes = b"") -> None:
        """Read it for the first time. `keys`: the JWKS where `--keys` is not given. Raises ConfigError."""
        if isinstance(settings.keys, KeyUrl):
            # In a loop of asyncio's own, not in uvloop's: it leaves no thread behind, which a fork would not survive.
            keys = asyncio.run(fetch_keys(settings.keys))
        self._settings = settings
        self._file = settings.keys if isinstance(settings.keys, Path) else None
        self._watchers: list[Callable[[], None]] = []
        self._results = {"ok": 0, "failed": 0}
        self._read_at = time.time()
        self._texts = self._read(keys)
        in_force, revoked, self.policy = self._parsed(self._texts)
        self._revoked: Mapping[str, float] = revoked
        self.tokens = Tokens(in_force, revoked, required=settings.keys is not None)
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
    def keys(self) -> bytes:
        """The JWKS in force, as it was read."""
        return self._texts.keys

    def take(self, packed: bytes) -> None:
        """Have the same in force as the process that has shared this (Rule 2)."""
        texts, self._results, self._read_at = msgpack.unpackb(packed)
        self._put_in_force(Texts(*texts), *self._parsed(Texts(*texts)))

    def metrics(self) -> Iterator[Metric]:
        """Of what is in force, for Prometheus. One process of a node shows them."""
        text = "Times that keys, revoked tokens and the policy were read anew"
        yield counters("reloads", text, "result", self._results.items())
        yield gauge("last_reload_timestamp_seconds", "When what is in force was read", self._read_at)
        yield gauge("keys", "Keys in force", len(self.tokens.keys))
        digests = [(name, float(_digest(text))) for name, text in self._texts._asdict().items()]
        yield gauges("settings_digest", "The same number for the same file, to compare nodes by", "file", digests)

    def _warn(self) -> None:
        for warning in self.policy.warnings():
            logger.warning("%s", warning)

    # ---- the pieces ------------------------------------------------------------------------------------------

    def _read(self, keys: bytes) -> Texts:
        """What the files hold. `keys`: those of no file."""
        settings, read = self._settings, _read("keys", self._file)
        return Texts(
            keys if read is None else read, _read("revoked", settings.revoked), _read("policy", settings.policy)
        )

    def _handed_on(
        self, texts: Texts, results: Mapping[str, int], read_at: float, share: Callable[[bytes], None]
    ) -> str:
        """Parse it, share it, and only then put it in force here. Returns what has changed, in numbers."""
        parsed = self._parsed(texts)
        share(_packed(texts, results, read_at))
        return self._put_in_force(texts, *parsed)

    def _parsed(self, texts: Texts) -> tuple[dict[str, PyJWK], dict[str, float], Policy]:
        settings = self._settings
        return (
            parse_keys(texts.keys, settings.keys),
            {} if texts.revoked is None else parse_revoked(texts.revoked, settings.revoked),
            policy.parse(texts.policy, settings.policy),
        )

    def _put_in_force(
        self, texts: Texts, keys: Mapping[str, PyJWK], revoked: Mapping[str, float], in_force: Policy
    ) -> str:
        """Returns what has changed, in numbers."""
        had_keys, had_revoked, had_policy = self.tokens.keys, self._revoked, self.policy
        if texts != self._texts:
            self.tokens.replace(keys, revoked)
            self._texts, self._revoked, self.policy = texts, revoked, in_force
            for changed in self._watchers:
                changed()
        return "; ".join(
            [
                _difference("keys", had_keys.items(), self.tokens.keys.items()),
                _difference("revocations", had_revoked.items(), self._revoked.items()),
                f"policy {'unchanged' if self.policy == had_policy else 'changed'}",
            ]
        )


def _said(error: Exception) -> str:
    """What the operator is told of an error: the line that was made for it, or where it came from."""
    return str(error) if isinstance(error, ConfigError | OSError) else trace(error)


def _packed(texts: Texts, results: Mapping[str, int], read_at: float) -> bytes:
    packed: bytes = msgpack.packb((texts, results, read_at))
    return packed


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
