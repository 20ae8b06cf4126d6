"""What the store has of a device says nothing to who copies it (WPP2, WPS1)."""

import json
from dataclasses import replace

import pytest
from support.flipping import flipped

from geocast.errors import ConfigError
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
    """A file of `--push-keys`."""
    return json.dumps({"keys": [make_push_key(str(number)) for number in range(count)]}).encode()


def test_what_most_devices_have_alike_is_in_memory_once():
    """There may be 200,000."""
    one, other = unpacked(RECORD.packed()), unpacked(replace(RECORD, id="another-device-id").packed())
    for name in ("vapid", "categories", "min_severity", "languages", "kid"):
        assert getattr(one, name) is getattr(other, name), name


@pytest.fixture
def keyring():
    """A store's key."""
    return parse_push_keys(a_file(1), "file")


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, categories=None, issued_at_s=None, small=True)])
def test_a_record_that_is_opened_is_the_one_that_was_sealed(keyring, record):
    """WPS1."""
    assert keyring.open(keyring.seal(record, b"device", UNTIL_MS), b"device", UNTIL_MS) == (record, 0)


def test_nothing_of_a_record_can_be_read(keyring):
    """WPM4: no endpoint, cell, `sub` or key."""
    sealed = keyring.seal(RECORD, b"device", UNTIL_MS)
    for word in (RECORD.sub, RECORD.id, *RECORD.cells, "fcm.googleapis.com", "fire_structure"):
        assert word.encode() not in sealed
    assert RECORD.auth not in sealed


def test_records_are_as_long_as_each_other(keyring):
    """WPP2: padded, so that a length tells of no place or filter; twice as long only for many categories."""
    many = replace(RECORD, cells=("8926cb19c93ffff",) * 8, endpoint="https://a.example/" + "x" * 982)
    lengths = {len(keyring.seal(record, b"device", UNTIL_MS)) for record in (RECORD, many, replace(RECORD, cells=()))}
    assert len(lengths) == 1
    wordy = replace(RECORD, categories=tuple(f"{number:064}" for number in range(64)))
    assert keyring.open(keyring.seal(wordy, b"device", UNTIL_MS), b"device", UNTIL_MS) == (wordy, 0)


@pytest.mark.parametrize(("device", "until_ms"), [(b"other", UNTIL_MS), (b"device", UNTIL_MS + 1)])
def test_a_record_is_good_for_its_device_and_its_lease_alone(keyring, device, until_ms):
    """WPS1: whoever can write to the store can't swap two, or have one live on."""
    with pytest.raises(ValueError, match="no key opens it"):
        keyring.open(keyring.seal(RECORD, b"device", UNTIL_MS), device, until_ms)


def test_a_record_that_was_changed_does_not_open(keyring):
    """WPS4: in any byte."""
    sealed = keyring.seal(RECORD, b"device", UNTIL_MS)
    for at in (0, 5, 20, len(sealed) - 1):
        with pytest.raises(ValueError, match="no key opens it"):
            keyring.open(flipped(sealed, at), b"device", UNTIL_MS)
    for length in (0, 3, 10, 40):
        with pytest.raises(ValueError, match="no key opens it"):
            keyring.open(sealed[:length], b"device", UNTIL_MS)


def test_the_first_key_seals_and_all_open():
    """WPS1: a new one is put in front."""
    old, new = [make_push_key("old")], [make_push_key("new")]
    before = parse_push_keys(json.dumps({"keys": old}).encode(), "file")
    after = parse_push_keys(json.dumps({"keys": new + old}).encode(), "file")
    sealed = before.seal(RECORD, b"device", UNTIL_MS)
    assert after.open(sealed, b"device", UNTIL_MS) == (RECORD, 1)
    assert after.digest("device", "x", key=1) == before.digest("device", "x") != after.digest("device", "x")
    with pytest.raises(ValueError, match="no key opens it"):
        before.open(after.seal(RECORD, b"device", UNTIL_MS), b"device", UNTIL_MS)


def test_a_digest_depends_on_the_key_the_kind_and_each_value():
    """WPP2: and where one value ends and the next begins."""
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


def test_what_a_later_release_has_put_into_a_record_is_passed_over():
    """LogG6, for devices: a record is a map."""
    import msgpack

    later = msgpack.unpackb(RECORD.packed()) | {"quiet_hours": [22, 7]}
    assert unpacked(msgpack.packb(later)) == RECORD
    for broken in (b"", b"\xc0", msgpack.packb({"id": "x"})):
        with pytest.raises(ValueError, match=r"."):
            unpacked(broken)


def test_a_file_without_such_keys_is_refused():
    """WPS1, K1: as that of calls is (tests/auth/test_jwks.py), by the name of its option."""
    bad = json.dumps({"keys": [make_push_key("x") | {"k": "c2hvcnQ"}]}).encode()
    with pytest.raises(ConfigError, match=r"^push-keys FILE: key 1: k: expected 32 bytes in base64url"):
        parse_push_keys(bad, "FILE")
    other = json.dumps({"keys": [make_push_key("x") | {"alg": "A128GCM"}]}).encode()
    with pytest.raises(ConfigError, match=r"A256GCM \(geocast keygen --push makes such keys\)$"):
        parse_push_keys(other, "FILE")


def test_a_keyring_says_how_many_keys_it_has():
    """For who looks after the file."""
    assert len(parse_push_keys(a_file(3), "file")) == len(Keyring([bytes(32)] * 3)) == 3
