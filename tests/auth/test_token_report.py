"""The report on a token, with each reason for a refusal. `test_tokens` checks that the report and `tokens` agree."""

import jwt
import pytest
from jwt import PyJWK
from support.fakes import NOON_MS

from geocast.auth.token_report import explain, in_words
from geocast.auth.tokens import AUDIENCE, Key, make_key
from geocast.clock import Now

NOON = Now(NOON_MS, 1000.0)
NOON_S = NOON_MS // 1000
PRIVATE, PUBLIC = make_key("k1")
STRANGER, _ = make_key("k1")
KEYS = {"k1": Key(PUBLIC, "EdDSA")}
CLAIMS = {"aud": AUDIENCE, "sub": "desk-7", "exp": NOON_S + 60, "iat": NOON_S - 60, "scope": "alerts:publish"}


def refusals(key=PRIVATE, kid="k1", revoked=None, **changes):
    """Return the reasons for refusing a token with these claims changed (`...` removes a claim)."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    header = {} if kid is None else {"kid": kid}
    return explain(jwt.encode(claims, PyJWK(key, "EdDSA"), "EdDSA", header), KEYS, revoked or {}, NOON).refusals


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kid": None}, "its header has no kid, "),
        ({"kid": "k9"}, 'its kid "k9" is none of the keys: "k1"'),
        ({"key": STRANGER}, 'its signature is not by key "k1"'),
        ({"aud": ...}, 'it has no aud; expected "geocast"'),
        ({"aud": "other"}, 'its aud is wrong; expected "geocast"'),
        ({"sub": ...}, "it has no sub, "),
        ({"sub": "r-\ud800"}, "it has no sub, "),
        ({"exp": ...}, "it has no exp, "),
        ({"exp": NOON_S - 180}, "it expired 3 minutes ago, at 2"),
        ({"exp": NOON_S}, "it expired 0 seconds ago, at "),
        ({"nbf": NOON_S + 7200}, "it is not valid before 2"),
        ({"scope": ["alerts:publish"]}, "its scope is not a text of scopes"),
        ({"revoked": {"desk-7": NOON_S}}, "tokens of its sub are revoked before 2"),
        ({"revoked": {"desk-7": NOON_S}, "iat": ...}, "it does not say when it was issued"),
        ({"quals": ["CPR"]}, "its quals are not a list of 1 to 16 texts of a-z"),
        ({"quals": None}, "its quals are not a list of 1 to 16 texts of a-z"),
        ({"jti": 7}, "a claim is not of the type"),
    ],
)
def test_report_gives_reason_why_token_is_invalid(changes, expected):
    """The reason says what was expected (rules T1 to T3 and BA3)."""
    [told] = refusals(**changes)
    assert expected in told


def test_report_lists_all_reasons_why_token_is_invalid():
    """The report does not stop at the first reason."""
    assert len(refusals(key=STRANGER, aud=..., sub="", exp=NOON_S - 1, nbf=NOON_S + 1, scope=1)) == 6


@pytest.mark.parametrize("changes", [{}, {"revoked": {"desk-7": NOON_S - 60}}, {"aud": ["x", AUDIENCE]}], ids=str)
def test_report_of_valid_token_has_no_reasons(changes):
    """The report agrees with the node's decision (rule T3)."""
    assert refusals(**changes) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"cpr": None, "medic": "its key may not grant it (RQ3)"}),
        ({"kid": "k9"}, dict.fromkeys(["cpr", "medic"], "its key may not grant it (RQ3)")),
        ({"iat": ...}, dict.fromkeys(["cpr", "medic"], "the token does not end within 24 hours of its iat (RQ2)")),
        (
            {"exp": NOON_S + 86_341},
            dict.fromkeys(["cpr", "medic"], "the token does not end within 24 hours of its iat (RQ2)"),
        ),
        ({"exp": "soon"}, dict.fromkeys(["cpr", "medic"], "the token does not end within 24 hours of its iat (RQ2)")),
        ({"quals": ["CPR"]}, {}),
        ({"quals": ...}, {}),
    ],
    ids=str,
)
def test_each_qualification_counts_or_is_reported_with_reason(changes, told):
    """A token can be valid even if its qualifications don't count (rules RQ2 and RQ3)."""
    claims = {
        name: value for name, value in (CLAIMS | {"quals": ["cpr", "medic"]} | changes).items() if value is not ...
    }
    token = jwt.encode(claims, PyJWK(PRIVATE, "EdDSA"), "EdDSA", {"kid": claims.pop("kid", "k1")})
    assert explain(token, {"k1": Key(PUBLIC | {"quals": ["cpr"]})}, {}, NOON).quals == told


def test_wrong_algorithm_is_reported():
    """The algorithm is the one in the key (rule T2)."""
    token = jwt.encode(CLAIMS, "s" * 32, "HS256", {"kid": "k1"})
    assert explain(token, KEYS, {}, NOON).refusals == ['its alg is "HS256", and key "k1" is for EdDSA (T2)']


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 5000, "eyJhbGciOiJub25lIn0..", "\udcff"])
def test_malformed_token_is_reported(token):
    """Any text gets a reason, and no error is raised (rule T1)."""
    assert explain(token, KEYS, {}, NOON).refusals


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3599, "in 59 minutes"),
        (90, "in 90 seconds"),
        (-1, "1 second ago"),
        (86_400, "in 24 hours"),
        (-3 * 86_400, "3 days ago"),
        (0, "0 seconds ago"),
    ],
)
def test_duration_in_words_uses_largest_unit_with_value_of_two_or_more(seconds, words):
    """For example, 90 seconds stay seconds, because they are less than two minutes."""
    assert in_words(seconds) == words
