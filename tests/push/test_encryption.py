"""Encryption of stored devices: a copied store reveals nothing about them (rules WPP2, WPS1)."""

import json
from dataclasses import replace

import pytest
from support.flipping import flipped

from geocast.model.errors import ConfigError
from geocast.push import encryption
from geocast.push.encryption import Keyring, Record, make_push_key, parse_push_keys, unpacked

UNTIL_MS = 2_000_000_000_000
RECORD = Record(
    id="n2Vd0sJm3yQe1xKp",
    sub="phone-1",
    endpoint="https://fcm.googleapis.com/fcm/send/abc",
    p256dh=b"\4" + bytes(64),
    auth=b"a" * 16,
    vapid="BDd3",
    topic_key=b"t" * 32,
    secret=b"s" * 32,
    cells=("8926cb19c93ffff", "8826cb19cbfffff"),
    categories=("fire_structure",),
    min_severity="moderate",
    languages=("es", "en"),
    proofs=False,
    may_test=True,
    issued_at_s=1.5,
    expires_at_ms=UNTIL_MS,
    kid="key-1",
)


def a_file(count):
    """Return a file of `--push-keys`."""
    return json.dumps({"keys": [make_push_key(str(number)) for number in range(count)]}).encode()


def test_equal_values_of_different_records_are_stored_once_in_memory():
    """There may be 200,000 devices."""
    one, other = unpacked(RECORD.packed()), unpacked(replace(RECORD, id="another-device-id").packed())
    for name in ("vapid", "categories", "min_severity", "languages", "kid"):
        assert getattr(one, name) is getattr(other, name), name


@pytest.fixture
def keyring():
    """Return a store's keys."""
    return parse_push_keys(a_file(1), "file")


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, categories=None, issued_at_s=None, small=True)])
def test_decrypted_record_equals_the_encrypted_one(keyring, record):
    """A record survives encryption (rule WPS1)."""
    assert keyring.open(keyring.seal(record, b"device", UNTIL_MS), b"device", UNTIL_MS) == (record, 0)


def test_encrypted_record_contains_no_plain_text(keyring):
    """The endpoint, the cells, the `sub` and the keys are all encrypted (rule WPP2)."""
    sealed = keyring.seal(RECORD, b"device", UNTIL_MS)
    for word in (RECORD.sub, RECORD.id, *RECORD.cells, "fcm.googleapis.com", "fire_structure"):
        assert word.encode() not in sealed
    assert RECORD.auth not in sealed


def test_encrypted_records_have_equal_lengths(keyring):
    """Padding hides places and filters; only very many categories need twice the size (rule WPP2)."""
    many = replace(RECORD, cells=("8926cb19c93ffff",) * 8, endpoint="https://a.example/" + "x" * 982)
    lengths = {len(keyring.seal(record, b"device", UNTIL_MS)) for record in (RECORD, many, replace(RECORD, cells=()))}
    assert len(lengths) == 1
    wordy = replace(RECORD, categories=tuple(f"{number:064}" for number in range(64)))
    assert keyring.open(keyring.seal(wordy, b"device", UNTIL_MS), b"device", UNTIL_MS) == (wordy, 0)


@pytest.mark.parametrize(("device", "until_ms"), [(b"other", UNTIL_MS), (b"device", UNTIL_MS + 1)])
def test_record_can_be_decrypted_only_for_its_device_and_expiry(keyring, device, until_ms):
    """An attacker who can write to the store can't swap records or extend a lease (rule WPS1)."""
    with pytest.raises(ValueError, match="no key opens it"):
        keyring.open(keyring.seal(RECORD, b"device", UNTIL_MS), device, until_ms)


def test_modified_record_cannot_be_decrypted(keyring):
    """Every byte of a record is authenticated (rule WPS4)."""
    sealed = keyring.seal(RECORD, b"device", UNTIL_MS)
    for at in (0, 5, 20, len(sealed) - 1):
        with pytest.raises(ValueError, match="no key opens it"):
            keyring.open(flipped(sealed, at), b"device", UNTIL_MS)
    for length in (0, 3, 10, 40):
        with pytest.raises(ValueError, match="no key opens it"):
            keyring.open(sealed[:length], b"device", UNTIL_MS)


def test_first_key_encrypts_and_every_key_decrypts():
    """A new key is put in front of the old ones (rule WPS1)."""
    old, new = [make_push_key("old")], [make_push_key("new")]
    before = parse_push_keys(json.dumps({"keys": old}).encode(), "file")
    after = parse_push_keys(json.dumps({"keys": new + old}).encode(), "file")
    sealed = before.seal(RECORD, b"device", UNTIL_MS)
    assert after.open(sealed, b"device", UNTIL_MS) == (RECORD, 1)
    assert after.digest("device", "x", key=1) == before.digest("device", "x") != after.digest("device", "x")
    with pytest.raises(ValueError, match="no key opens it"):
        before.open(after.seal(RECORD, b"device", UNTIL_MS), b"device", UNTIL_MS)


def test_digest_depends_on_the_key_the_kind_and_each_value():
    """The digest also depends on where one value ends and the next begins (rule WPP2)."""
    one, other = (parse_push_keys(a_file(1), "file") for _ in range(2))
    digests = [
        one.digest("device", "a", "b"),
        one.digest("device", "ab", ""),
        one.digest("device", "ab"),
        one.digest("endpoint", "a", "b"),
        other.digest("device", "a", "b"),
    ]
    assert len(set(digests)) == len(digests)
    assert one.digest("device", "a", "b") == digests[0]
    assert {len(each) for each in digests} == {encryption.DIGEST_BYTES}


def test_record_fields_of_a_later_release_are_ignored():
    """A record is a map of named fields, as log entries are (rule LogG6)."""
    import msgpack

    later = msgpack.unpackb(RECORD.packed()) | {"quiet_hours": [22, 7]}
    assert unpacked(msgpack.packb(later)) == RECORD
    for broken in (b"", b"\xc0", msgpack.packb({"id": "x"})):
        with pytest.raises(ValueError, match=r"."):
            unpacked(broken)


def test_key_file_with_a_key_unfit_for_encryption_is_refused():
    """The error names the option, as for the keys of calls in tests/auth/test_jwks.py (rules WPS1, K1)."""
    bad = json.dumps({"keys": [make_push_key("x") | {"k": "c2hvcnQ"}]}).encode()
    with pytest.raises(ConfigError, match=r"^push-keys FILE: key 1: k: expected 32 bytes in base64url"):
        parse_push_keys(bad, "FILE")
    other = json.dumps({"keys": [make_push_key("x") | {"alg": "A128GCM"}]}).encode()
    with pytest.raises(ConfigError, match=r"A256GCM \(geocast keygen --push makes such keys\)$"):
        parse_push_keys(other, "FILE")


def test_length_of_keyring_is_number_of_keys():
    assert len(parse_push_keys(a_file(3), "file")) == len(Keyring([bytes(32)] * 3)) == 3
