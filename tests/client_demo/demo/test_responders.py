"""Tests that a node accepts the demo's tokens, policy and defibrillators, and that the search for a place works."""

import json
import time
from collections import Counter

from client_demo.demo.cardiac_arrest import ACCESS, AEDS_M, QUALS, arrests_of, needles, where, write_aeds
from client_demo.demo.issuing import Issuer
from client_demo.demo.processes import POLICY
from client_demo.demo.responders import SORTS, responders
from client_demo.desk.feeds import SAMPLE
from client_demo.python.wire import WIRES
from geocast.auth.tokens import TokenVerifier, make_key, parse_keys
from geocast.calls.aeds import read_aeds
from geocast.clock import Now
from geocast.policy.files import load

HOME = (32.79147, -96.79863)


def test_expected_qualifications_equal_those_a_node_reads_from_the_token(tmp_path):
    """The verdict relies on these qualifications, also for tokens that last too long (rules RQ1, RQ2, RQ3)."""
    private, public = make_key("demo")
    (tmp_path / "private.jwk").write_text(json.dumps(private))
    keys = parse_keys(json.dumps({"keys": [{**public, "quals": ["cpr", "medic"]}]}).encode(), "demo")
    issuer, tokens = Issuer(tmp_path / "private.jwk"), TokenVerifier(keys, {})
    everybody = responders([HOME] * 4, lambda *said: issuer.token(said[0], ["alerts:receive"], said[2], said[1]))
    now = Now(int(time.time() * 1000), time.monotonic_ns() // 1_000_000)
    for one in everybody:
        grant = tokens.check(one.simulated.token, now)
        assert grant is not None
        assert (grant.sub, grant.quals) == (one.simulated.sub, one.counts)
    assert Counter(one.sort for one in everybody).keys() == SORTS.keys()
    assert len({one.simulated.sub for one in everybody}) == len(everybody)
    assert any(one.here is None for one in everybody)


def test_demo_policy_has_the_built_in_categories_and_a_cardiac_arrest_call():
    """Calls change nothing on the review desk (rule RO1)."""
    demo, built_in = load(POLICY), load(None)
    assert demo.categories.keys() - {"flood"} == built_in.categories.keys()
    assert demo.categories.items() >= built_in.categories.items()
    assert demo.never == built_in.never
    (call,) = demo.calls.values()
    assert frozenset(call.terms("residence").quals) == QUALS


def test_cardiac_arrest_of_the_sample_has_defibrillators_around_it(tmp_path):
    """All generated defibrillators are usable (rule RI1)."""
    (arrest,) = arrests_of(SAMPLE, None)
    found = read_aeds(write_aeds(tmp_path / "aeds.geojson", [arrest]))
    assert len(found) == len(AEDS_M)
    assert found.unusable == 0
    assert len(found.near(*where(arrest), 800)) == 3
    assert all(aed.open and aed.code and aed.where for aed in found)


def test_place_is_found_in_both_formats_and_nowhere_else():
    """A task has to contain the place, and a call must not (rule RZ2)."""
    place = {"lat": 32.79157512, "lng": -96.79870804, "kind": "residence", "address": "Copper Gate", "access": ACCESS}
    sought = [bytes.fromhex(needle) for needle in needles(place)]
    near = {"type": "circle", "lat": 32.791201, "lng": -96.798801, "radius_m": 210.0}
    for wire in WIRES.values():
        for said, hits in (({"place": place}, 4), ({"lat": place["lat"]}, 1), ({"near": near}, 0)):
            frame = wire.encode({"type": "task", **said})
            data = frame.encode() if isinstance(frame, str) else frame
            assert sum(needle in data for needle in sought) == hits
