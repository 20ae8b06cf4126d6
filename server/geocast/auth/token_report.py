"""A report on a token: its content, and all reasons why a node would refuse it.

Nodes never tell clients a reason (rule T4), because it would help an intruder. This report is for operators, who have
both the token and the keys.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from jwt.exceptions import InvalidSignatureError, PyJWTError

from ..clock import Now
from ..model.qualifications import QUALS_FORM, are_quals
from ..model.times import format_time
from .tokens import AUDIENCE, MAX_TOKEN_BYTES, Key, TokenVerifier, is_date, is_fresh, is_sub

_NO_JWT = "it is not a JWT, which has three base64url parts with dots between them; the first two are JSON objects"
_UNCHECKED: Any = {"verify_signature": False}
_SIGNATURE_ONLY: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class TokenReport(NamedTuple):
    """The content of a token, not verified, and the reasons why a node would refuse the token (none if it is valid).

    `quals` maps each qualification in the token to the reason why it does not count, or None if it counts. `issuer` is
    the issuer of the key that the token names (rule HD5); it is empty if the key has no `iss` or is unknown.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    refusals: Sequence[str]
    quals: Mapping[str, str | None]
    issuer: str = ""


def explain(token: str, keys: Mapping[str, Key], revoked: Mapping[str, float], now: Now) -> TokenReport:
    """Return a report on `token`, with what a node that has these keys and revocations would find at the time `now`."""
    try:
        parts = jwt.decode_complete(token, options=_UNCHECKED)
    except (PyJWTError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
        return TokenReport({}, {}, [_NO_JWT], {})
    header, claims = parts["header"], parts["payload"]
    refusals = [*_check_key(token, header, keys), *_check_claims(claims, now.wall_ms)]
    refusals += _check_revocation(claims, revoked)
    if len(token) > MAX_TOKEN_BYTES:
        refusals.insert(0, f"it has {len(token)} bytes; the limit is {MAX_TOKEN_BYTES} (T1)")
    if not refusals and TokenVerifier(keys, revoked).check(token, now) is None:
        refusals.append("a claim is not of the type that RFC 7519 defines")
    key = keys.get(str(header.get("kid")))
    quals = _quals(claims, key, now.wall_ms)
    return TokenReport(header, claims, refusals, quals, "" if key is None else key.issuer)


def in_words(seconds: float) -> str:
    """Return a time span in words, such as "in 59 minutes" or "3 days ago". Negative seconds are in the past.

    The result uses the largest unit that gives a number of at least two.
    """
    length, unit = next((each for each in _UNITS if abs(seconds) >= 2 * each[0]), _UNITS[-1])
    number = int(abs(seconds) // length)
    words = f"{number} {unit}{'' if number == 1 else 's'}"
    return f"in {words}" if seconds > 0 else f"{words} ago"


def _check_key(token: str, header: Mapping[str, Any], keys: Mapping[str, Key]) -> Iterator[str]:
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(kid, str):
        yield "its header has no kid, which names the signing key (T2)"
    elif kid not in keys:
        yield f"its kid {json.dumps(kid)} is none of the keys: {', '.join(map(json.dumps, keys))} (T2)"
    elif algorithm != keys[kid].algorithm_name:
        yield f"its alg is {json.dumps(algorithm)}, and key {json.dumps(kid)} is for {keys[kid].algorithm_name} (T2)"
    else:
        try:
            jwt.decode(token, keys[kid], [keys[kid].algorithm_name], options=_SIGNATURE_ONLY)
        except InvalidSignatureError:
            yield f"its signature is not by key {json.dumps(kid)}"
        except (PyJWTError, TypeError, ValueError):
            return  # a claim is wrong; `_check_claims` reports it


def _check_claims(claims: Mapping[str, Any], now_ms: int) -> Iterator[str]:
    aud, sub, exp, nbf = claims.get("aud"), claims.get("sub"), claims.get("exp"), claims.get("nbf", 0)
    if aud != AUDIENCE and not (isinstance(aud, list) and AUDIENCE in aud):
        yield f'{"it has no aud" if aud is None else "its aud is wrong"}; expected "{AUDIENCE}" (T3)'
    if not is_sub(sub):
        yield "it has no sub, a text that names its subject (T3)"
    if not is_date(exp):
        yield "it has no exp, a number of seconds since 1970 (T3)"
    elif exp * 1000 <= now_ms:
        yield f"it expired {in_words(exp - now_ms / 1000)}, at {format_time(int(exp * 1000))} (T3)"
    if not is_date(nbf):
        yield "its nbf is not a number of seconds since 1970 (T3)"
    elif nbf * 1000 > now_ms:
        yield f"it is not valid before {format_time(int(nbf * 1000))}, {in_words(nbf - now_ms / 1000)} (T3)"
    if not isinstance(claims.get("scope", ""), str):
        yield "its scope is not a text of scopes with blanks between them (T3)"
    if "quals" in claims and not are_quals(claims["quals"]):
        yield f"its quals are not a list of {QUALS_FORM} (RQ1)"


def _check_revocation(claims: Mapping[str, Any], revoked: Mapping[str, float]) -> Iterator[str]:
    sub, issued_at = claims.get("sub"), claims.get("iat")
    before = revoked.get(sub) if isinstance(sub, str) else None
    if before is not None and not (is_date(issued_at) and issued_at >= before):
        when = "it does not say when it was issued (iat)" if issued_at is None else "it was issued before that"
        yield f"tokens of its sub are revoked before {format_time(int(before * 1000))}, and {when} (BA3)"


def _quals(claims: Mapping[str, Any], key: Key | None, now_ms: int) -> dict[str, str | None]:
    """Return a dict that maps each qualification in the token to the reason why it does not count, or to None."""
    claimed = claims.get("quals")
    if not are_quals(claimed):
        return {}
    expires_at = claims.get("exp")
    if not is_date(expires_at) or not is_fresh(claims.get("iat"), expires_at, now_ms / 1000):
        return dict.fromkeys(claimed, "the token does not end within 24 hours of its iat (RQ2)")
    may_grant = frozenset[str]() if key is None else key.quals
    return {each: None if each in may_grant else "its key may not grant it (RQ3)" for each in claimed}
