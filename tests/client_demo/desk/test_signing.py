"""Tests of signing: who may sign which request, when it is sent, and what replaces it."""

import base64
import json
from dataclasses import asdict

import pytest

from client_demo.desk.feeds import read_records
from client_demo.desk.queue import Item, Queue, accept, read_form, refuse, sighting
from client_demo.desk.signing import Signature, SigningRequest, read_signature
from client_demo.desk.triage import Policy
from client_demo.python.times import format_time
from client_demo.staff_page.decisions import Conflict, Trouble

NOW = 1_800_000_000_000
FORM = '{"v":1,"what":"alert"}'
POLICY = Policy.from_map(
    {
        "name": "signed",
        "categories": {
            "fire_structure": {"title": "Structure fire", "max_age_s": 3600, "approvals": 2, "cancel_approvals": 1},
            "burglary": {"title": "Burglary", "max_age_s": 3600},
        },
        "never": {},
    }
)
ANSWER = {"id": "x", "revision": 1, "area": [], "issued_at": format_time(NOW), "expires_at": format_time(NOW + 60_000)}


def one():
    """Return a queue and its only item, a fire."""
    queue = Queue(POLICY, "actual")
    at = format_time(NOW - 60_000)[:19] + "Z"
    records = read_records("feed.csv", f"incident,reported_at,nature,lat,lng\nA,{at},Structure fire,32.7,-96.8")
    (item,) = (queue.take(sighting(group, records, group.incident.occurred_at)) for group in records.groups)
    return queue, item


def asked(queue, item, by="ann", form=FORM, needed=2, **changes):
    """Return the request that has to be signed to publish this item as proposed."""
    draft = read_form({**queue.proposal(item), **changes})
    body = queue.to_approve(item, item.version, draft, by, NOW)
    return SigningRequest("revise" if item.revision else "publish", body, form, needed, draft)


def signature(by, kid=None, at=NOW):
    return Signature(by, at, kid or f"key of {by}", "e30", "AAAA")


def live():
    """Return a queue and its only item, a published fire."""
    queue, item = one()
    first = asked(queue, item)
    assert not queue.sign(item, item.version, first, signature("ann"))
    assert queue.sign(item, item.version, first, signature("ben"))
    accept(item, ANSWER)
    return queue, item


def test_request_to_be_signed_has_no_plain_approval():
    """The signatures are the approval (rule AP7)."""
    queue, item = one()
    assert "approval" not in queue.body(item, read_form(queue.proposal(item)), "ann", NOW)
    other = read_form({**queue.proposal(item), "category": "burglary"})
    assert queue.body(item, other, "ann", NOW)["approval"]["reviewer"] == "ann"


def test_alert_that_needed_signatures_needs_them_in_every_later_category():
    """The desk follows the node, which applies the strictest revision of an alert (rule HD1)."""
    queue, item = live()
    eased = asked(queue, item, category="burglary")
    assert "approval" not in eased.body
    assert not queue.sign(item, item.version, eased, signature("ann"))
    assert queue.sign(item, item.version, eased, signature("ben"))
    accept(item, {**ANSWER, "revision": 2})
    assert item.form["category"] == "burglary"
    assert "approval" not in queue.to_cancel(item, item.version, "It is over", True, "ann", NOW)


def test_request_is_sent_with_its_last_signature():
    """The request and form are unchanged, and the signatures keep their order."""
    queue, item = one()
    first = asked(queue, item)
    assert not queue.sign(item, 1, first, signature("ann"))
    assert (item.state, item.pending, item.draft) == ("waiting", None, first.draft)
    assert item.signing.shown()["signed"] == [{"by": "ann", "at": NOW, "kid": "key of ann"}]
    assert queue.sign(item, item.version, item.signing, signature("ben"))
    assert item.signing is None
    approval = item.pending.body.pop("approval")
    assert item.pending.body == first.body
    assert approval == {"form": FORM, "signatures": [{"protected": "e30", "signature": "AAAA"}] * 2}
    assert [(each.what, each.by) for each in item.history] == [("sign", "ann"), ("publish", "ben")]
    accept(item, ANSWER)
    assert (item.state, item.form) == ("live", first.draft)


def test_same_key_counts_once():
    """A signature that is sent again, after a lost response for instance, changes nothing."""
    queue, item = one()
    first = asked(queue, item)
    queue.sign(item, 1, first, signature("ann"))
    version = item.version
    assert not queue.sign(item, 1, first, signature("ann"))
    assert (item.version, len(item.signing.signatures)) == (version, 1)
    assert queue.sign(item, version, first, signature("ann", "the key in the envelope"))


def test_request_being_signed_cannot_change_until_withdrawn():
    """Another text or a dismissal gets a conflict that names the first signer."""
    queue, item = one()
    queue.sign(item, 1, asked(queue, item), signature("ann"))
    with pytest.raises(Conflict, match=r"^ann was first: signed at"):
        asked(queue, item, headline="Smoke over the harbour")
    with pytest.raises(Conflict):
        queue.set_aside(item, item.version, "dismiss", "ben", NOW)
    with pytest.raises(Conflict):
        queue.withdraw(item, 1, "ben", NOW)
    queue.withdraw(item, item.version, "ben", NOW)
    assert (item.signing, item.history[-1].what) == (None, "withdraw")
    assert asked(queue, item, headline="Smoke over the harbour").body["headline"] == "Smoke over the harbour"


def test_concurrent_requests_with_different_texts_conflict():
    """The second signer has seen an older version."""
    queue, item = one()
    one_text, other = asked(queue, item), asked(queue, item, form=FORM.replace("1", "2"))
    queue.sign(item, 1, one_text, signature("ann"))
    with pytest.raises(Conflict):
        queue.sign(item, 1, other, signature("ben"))
    with pytest.raises(Conflict):
        queue.sign(item, item.version, other, signature("ben"))


def test_concurrent_requests_with_the_same_text_share_signatures():
    """The second signer has read the same text."""
    queue, item = one()
    first, second = asked(queue, item), asked(queue, item, by="ben")
    assert not queue.sign(item, 1, first, signature("ann"))
    assert queue.sign(item, 1, second, signature("ben"))


def test_cancel_replaces_a_revision_that_waits_for_signatures():
    """Cancels have to be quick: one signature is enough here."""
    queue, item = live()
    queue.sign(item, item.version, asked(queue, item, form="{}", headline="It spreads"), signature("ann"))
    body = queue.to_cancel(item, item.version, "The fire is out.", False, "ben", NOW)
    assert body == {"revision": 2, "reason": "The fire is out."}
    cancel = SigningRequest("cancel", body, '{"what":"cancel"}', 1, {"reason": "The fire is out."})
    assert queue.sign(item, item.version, cancel, signature("ben"))
    assert (item.pending.what, item.signing) == ("cancel", None)
    accept(item, {"id": "x", "revision": 2})
    assert item.state == "cancelled"


def test_refused_signature_returns_the_item_to_waiting():
    """A key that is not enrolled is one reason; the draft is kept."""
    queue, item = one()
    first = asked(queue, item, needed=1, headline="Smoke")
    assert queue.sign(item, 1, first, signature("ann"))
    refuse(item, [Trouble("", "A signature is not valid.")])
    assert (item.state, item.signing, item.draft["headline"]) == ("waiting", None, "Smoke")


def test_signing_request_survives_a_restart():
    """Items of an older file, without signatures, can be read."""
    queue, item = one()
    queue.sign(item, 1, asked(queue, item), signature("ann"))
    saved = json.loads(json.dumps(asdict(item)))
    assert Item.from_map(saved) == item
    del saved["signing"]
    assert Item.from_map(saved).signing is None


def header(**members):
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


def test_signature_is_stored_unchanged():
    """The desk does not verify it and reads only the key id."""
    sent = {"protected": header(kid="8f3a"), "signature": "w1p9", "more": 1}
    assert read_signature(sent, "ann", NOW) == Signature("ann", NOW, "8f3a", sent["protected"], "w1p9")


@pytest.mark.parametrize(
    "sent",
    [
        None,
        [],
        {},
        {"protected": header(kid="8f3a")},
        {"protected": 7, "signature": "w1p9"},
        {"protected": header(), "signature": "w1p9"},
        {"protected": header(kid=7), "signature": "w1p9"},
        {"protected": header(kid=""), "signature": "w1p9"},
        {"protected": "e", "signature": "w1p9"},
        {"protected": "[[[[", "signature": "w1p9"},
        {"protected": "é", "signature": "w1p9"},
        {"protected": base64.urlsafe_b64encode(b"[" * 700).decode(), "signature": "w1p9"},
        {"protected": header(kid="8f3a"), "signature": "A" * 1_025},
    ],
)
def test_malformed_signature_is_refused(sent):
    """The error repeats nothing from the input."""
    with pytest.raises(ValueError, match=r"^signature: "):
        read_signature(sent, "ann", NOW)
