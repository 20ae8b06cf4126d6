"""The items of the desk: incidents, the desk's proposal for each, and people's decisions. No I/O and no clock.

Rule 1  An incident is one item, even if it appears in several rows and versions of the feed. An item has at most one
        alert, whose id is chosen once. So a request that is repeated, lost or clicked twice never creates a second
        alert.
Rule 2  A decision names the version of the item that the reviewer has seen. If the item has a newer version, the
        decision is refused, and the reviewer is told who was first. If the same person makes the same decision twice,
        the second one changes nothing.
Rule 3  A decision is stored before it is sent (`Item.pending` has the exact request). While a request is pending, the
        item accepts no other decision. Example: the desk dies between storing and sending; when it is restarted, it
        sends the same request.
Rule 4  An incident is locked if the policy never alerts it, or if it concerns only an individual: no category can be
        chosen for it. The desk itself also refuses, before the node is asked, an incident that is too old or has no
        time, and a text that looks like an address.

                 approve                     accepted
        waiting ---------> pending publish ------------> live --- the node says so ---> expired
          |  ^                  | refused                 | ^
  dismiss |  | reopen           v                  revise | | accepted, or refused
          v  |               waiting               cancel v |
        dismissed                                pending revise / pending cancel --- accepted ---> cancelled

Rule 5  If the policy requires signatures, a decision is a text that reviewers sign. The text is stored with its item
        (`signing`) until as many keys have signed as the node requires. Then the request becomes pending. Until then,
        the only other possible decision is to cancel the alert; its text then replaces that of a revision.
"""

import secrets
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from client_demo.python.times import format_time, parse_time
from client_demo.staff_page.decisions import Conflict, NotAllowed, Trouble

from .feed_format import ADDRESS, CASE, PHONE, UNITS, Incident
from .feeds import Group, Records, is_near
from .redaction import Cell, Part, kept, questions, struck
from .refusals import span
from .signing import Signature, SigningRequest
from .triage import Desk, Policy, Reason, Refusal

MOST_ITEMS = 500  # undecided items; the oldest are dropped
MOST_ROWS = 20  # the most rows that are shown of one incident
DEFAULT_MAX_AGE_MS = 3_600_000
NO_NATURE = "Nature not told"
SKEW_MS = 60_000  # protocol, section 3
MOST_NUMBER = 1e9
TEXT_FIELDS = ("headline", "description", "category", "severity")
NUMBER_FIELDS = ("lat", "lng", "radius_m")  # the fields of a circle
MOST_KINDS = 16
MOST_CORNERS = 2_499  # the most corners of a drawn polygon (protocol, A16)
PAST = {
    "publish": "approved",
    "revise": "revised",
    "cancel": "cancelled",
    "dismiss": "dismissed",
    "reopen": "put back",
    "sign": "signed",
    "withdraw": "taken back",
}
NODE_KINDS = {ADDRESS: "address", UNITS: "units", PHONE: "phone"}  # the node's names for these kinds (protocol, P24)
ARTICLES = {ADDRESS: "an address", UNITS: "units sent there", CASE: "a case number", PHONE: "a telephone number"}
LOCKED = (Reason.NEVER_ALERTED, Reason.INDIVIDUAL)

Form = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sighting:
    """An incident of a feed, as the desk receives it: the incident, and its redacted rows.

    `incident.occurred_at` is the time at which it counts as having happened, in ms since 1970. `recorded_at` is the
    time in the feed; `is_retimed` says whether the two differ.
    """

    key: str
    is_numbered: bool
    incident: Incident
    recorded_at: int | None
    latest: int | None
    is_retimed: bool
    nature: str  # in the feed's own words, not shortened
    district: str
    rows: list[list[Cell]]
    row_count: int


def sighting(group: Group, records: Records, occurred_at: int | None) -> Sighting:
    """Return an incident of a feed for the desk.

    Private text is marked as private in its rows, and removed elsewhere.
    """
    told = records.format.told
    shown = (told.nature.column, told.district or "")
    nature, district = (kept(str(group.rows[0].get(name) or ""))[:60] for name in shown)
    return Sighting(
        group.key,
        group.is_numbered,
        replace(group.incident, occurred_at=occurred_at),
        group.incident.occurred_at,
        group.latest,
        occurred_at != group.incident.occurred_at,
        nature or NO_NATURE,
        district.title() if district.isupper() else district,
        [struck(row, records.format.private) for row in group.rows[:MOST_ROWS]],
        len(group.rows),
    )


@dataclass(slots=True)
class Decision:
    """A decision by a person: what was decided, by whom, when (ms), and for which version of the item."""

    what: str  # publish, revise, cancel, dismiss, reopen, sign, withdraw
    by: str
    at: int
    version: int
    form: Form | None = None


@dataclass(slots=True)
class Pending:
    """A request to the node, with its exact body. It is repeated until the node answers."""

    what: str  # publish, revise, cancel
    body: dict[str, Any]


@dataclass(slots=True)
class Item:
    """An incident on the desk, with its alert and the decisions about it."""

    id: str
    sighting: Sighting
    category: str  # the proposed one, or ""
    obstacle: str  # why no alert is allowed, or why no category is proposed
    is_locked: bool
    state: str = "waiting"  # waiting, dismissed, live, cancelled, expired
    version: int = 1
    alert_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    revision: int = 0  # the last revision that the node has accepted
    form: Form | None = None  # the form of that revision
    signing: SigningRequest | None = None  # the request that waits for signatures
    pending: Pending | None = None
    published: dict[str, Any] | None = None  # the node's last answer: area, issued_at, expires_at
    delivery: dict[str, int] | None = None  # the node's counts; with `rounded` unless the token has alerts:audit
    troubles: list[Trouble] = field(default_factory=list)  # reasons why the last decision was refused
    waits: str = ""  # the reason why the pending request has no answer yet
    history: list[Decision] = field(default_factory=list)

    @property
    def is_decided(self) -> bool:
        """Whether somebody has made a decision about the item. Such items are never dropped from the queue."""
        return bool(self.history)

    @property
    def draft(self) -> Form | None:
        """The form of a decision that is pending or was refused, so that nobody has to fill it in again; or None."""
        if self.signing is not None:
            return self.signing.draft
        is_open = self.pending is not None or bool(self.troubles)
        return self.history[-1].form if is_open and self.history else None

    def to_map(self) -> dict[str, Any]:
        """Return the item as JSON values, from which `from_map` can restore it."""
        return asdict(self)

    @classmethod
    def from_map(cls, saved: Mapping[str, Any]) -> "Item":
        """Return the item from the result of `to_map`."""
        seen = dict(saved["sighting"])
        seen["incident"] = Incident(**seen["incident"])
        seen["rows"] = [
            [Cell(column, [Part(*part) for part in parts]) for column, parts in row] for row in seen["rows"]
        ]
        return cls(
            **{
                **saved,
                "sighting": Sighting(**seen),
                "signing": SigningRequest.from_map(saved["signing"]) if saved.get("signing") else None,
                "pending": Pending(**saved["pending"]) if saved["pending"] else None,
                "troubles": [Trouble(*trouble) for trouble in saved["troubles"]],
                "history": [Decision(**decision) for decision in saved["history"]],
            }
        )


class Queue:
    """Keeps all items of the desk, and applies the rules for decisions.

    `status` is the status that the desk's alerts have: actual, exercise or test.
    """

    def __init__(self, policy: Policy, status: str, items: Iterable[Item] = ()) -> None:
        self._status = status
        self.follow(policy)
        self._items: dict[str, Item] = {}
        self._by_key: dict[str, list[Item]] = {}
        for item in items:
            self._add(item)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def get(self, item_id: str) -> Item | None:
        """Return the item with this id; None if there is none."""
        return self._items.get(item_id)

    def follow(self, policy: Policy) -> None:
        """Set the node's policy, which decides from now on what may be published."""
        self.policy, self._desk = policy, Desk(policy, retime=False)

    # ---- incidents of the feed -----------------------------------------------------------------------------

    def take(self, seen: Sighting) -> Item | None:
        """Add an incident of the feed, or update its item.

        Return the item if it is new or has changed, or None (Rule 1).
        """
        item = self._known(seen)
        if item is None:
            item = self._new(seen)
            self._add(item)
            return item
        if seen.rows == item.sighting.rows and seen.row_count == item.sighting.row_count:
            return None
        # The item keeps its incident, because the time and the place must not change while a reviewer looks at them.
        item.sighting = replace(item.sighting, rows=seen.rows, row_count=seen.row_count, latest=seen.latest)
        return item

    def trim(self) -> list[str]:
        """Remove the oldest items without a decision, if there are more than MOST_ITEMS of them. Return their ids."""
        undecided = [item for item in self if not item.is_decided]
        undecided.sort(key=lambda item: item.sighting.incident.occurred_at or 0)
        dropped = undecided[: max(0, len(undecided) - MOST_ITEMS)]
        for item in dropped:
            del self._items[item.id]
            self._by_key[item.sighting.key].remove(item)
        return [item.id for item in dropped]

    def _new(self, seen: Sighting) -> Item:
        category = self._desk.category_of(seen.incident)
        if isinstance(category, Refusal):
            obstacle = f"{category.reason}: {category.detail}"
            return Item(secrets.token_hex(8), seen, "", obstacle, category.reason in LOCKED)
        return Item(secrets.token_hex(8), seen, category, "", False)

    def _known(self, seen: Sighting) -> Item | None:
        for item in self._by_key.get(seen.key, []):
            known = item.sighting
            if seen.is_numbered or is_near(known.recorded_at, seen.recorded_at) or is_near(known.latest, seen.latest):
                return item
        return None

    def _add(self, item: Item) -> None:
        self._items[item.id] = item
        self._by_key.setdefault(item.sighting.key, []).append(item)

    # ---- what the desk proposes ----------------------------------------------------------------------------

    def proposal(self, item: Item) -> Form:
        """Return the form that the desk proposes for an item.

        The name of the district is the only text in it that comes from the feed.
        """
        incident, district = item.sighting.incident, item.sighting.district
        wording = self._desk.wording(item.category) if item.category else {}
        return {
            "headline": wording.get("headline", ""),
            "description": f"Reported in {district}." if district and item.category else "",
            "category": item.category,
            "severity": wording.get("severity", "moderate"),
            "lat": _rounded(incident.lat),
            "lng": _rounded(incident.lng),
            "radius_m": wording.get("radius_m", 800),
        }

    def wordings(self) -> dict[str, dict[str, Any]]:
        """Return the proposed words for each category of the policy, for a reviewer who chooses another category."""
        return {category: self._desk.wording(category) for category in self.policy.categories}

    def stale_at(self, item: Item, category: str | None = None) -> int | None:
        """Return the time from which the incident is too old to be published, in ms since 1970.

        Return None if the time of the incident is unknown. `category` is the one that a reviewer has chosen; if it is
        None, the item's own category is used.
        """
        occurred_at = item.sighting.incident.occurred_at
        category = item.category if category is None else category
        known = category in self.policy.categories
        max_age_ms = self.policy.max_age_ms(category) if known else DEFAULT_MAX_AGE_MS
        return None if occurred_at is None else occurred_at + max_age_ms

    # ---- reasons against publishing --------------------------------------------------------------------------

    def troubles(self, item: Item, form: Form, now_ms: int, asked: Collection[tuple[str, str]] = ()) -> list[Trouble]:
        """Return the desk's own reasons why this form can't be published (Rule 4).

        `asked` has a pair (field, kind of private-looking words) for each text that the node already asks the reviewer
        to confirm. The desk does not ask about the same words again.
        """
        found: list[Trouble] = []
        if item.is_locked:
            found.append(Trouble("category", f"This is not for an alert: {item.obstacle}."))
        elif form["category"] not in self.policy.categories:
            found.append(Trouble("category", "Choose a category."))
        if not item.revision:
            found += self._time_troubles(item, form["category"], now_ms)
        found += _shape_troubles(form)
        if not form["confirmed"]:
            found += _text_troubles(form, confirmed_kinds(form.get("confirm")), asked)
        return found

    def _time_troubles(self, item: Item, category: str, now_ms: int) -> Iterator[Trouble]:
        occurred_at, stale_at = item.sighting.incident.occurred_at, self.stale_at(item, category)
        if occurred_at is None or stale_at is None:
            yield Trouble("", "The record has no time: nobody can tell how old this is.")
        elif now_ms > stale_at:
            age = span((stale_at - occurred_at) // 1000)
            yield Trouble("", f"This happened more than {age} ago. Alerts are for what is happening now.")
        elif occurred_at > now_ms + SKEW_MS:
            yield Trouble("", "According to the record this has not happened yet. Check the feed's clock.")

    # ---- decisions of reviewers ----------------------------------------------------------------------------

    def body(self, item: Item, form: Form, by: str, now_ms: int) -> dict[str, Any]:
        """Return the body of the request that publishes the item's alert, or its next revision."""
        occurred_at = item.sighting.incident.occurred_at
        assert occurred_at is not None
        alert = {key: form[key] for key in TEXT_FIELDS if form[key] or key != "description"}
        revision = {"revision": item.revision + 1} if item.revision else {}
        return {
            "id": item.alert_id,
            **revision,
            **alert,
            "status": self._status,
            "threat": "community",
            "occurred_at": format_time(occurred_at),
            "area": [_shape(form)],
            **({} if self._is_signed(item, form["category"]) else {"approval": _approval(by, now_ms)}),
            **_confirm(form.get("confirm")),
        }

    def _is_signed(self, item: Item, category: str, *, of_cancel: bool = False) -> bool:
        """Return whether reviewers have to sign.

        They must if this category, or an earlier category of the alert, requires signatures (HD1).
        """
        had = {each.form["category"] for each in item.history if each.form and "category" in each.form}
        return any(self.policy.approvals(each, of_cancel=of_cancel) for each in had | {category})

    def approve(self, item: Item, version: int, form: Form, by: str, now_ms: int) -> bool:
        """Decide to publish the item's alert, or to revise it if it is live.

        Return False if the same person has already made this decision. Raise Conflict if the item has changed
        meanwhile, and NotAllowed if the form can't be published.
        """
        decision = Decision("revise" if item.revision else "publish", by, now_ms, version, form)
        if _is_repeated(item, decision):
            return False
        _decide(item, decision, self.to_approve(item, version, form, by, now_ms))
        return True

    def to_approve(self, item: Item, version: int, form: Form, by: str, now_ms: int) -> dict[str, Any]:
        """Return the request with which the item's alert is published or revised.

        Raise Conflict if the item has changed meanwhile, and NotAllowed if the form can't be published.
        """
        _expect(item, version, "live" if item.revision else "waiting")
        if troubles := self.troubles(item, form, now_ms):
            raise NotAllowed(troubles)
        return self.body(item, form, by, now_ms)

    def cancel(
        self,
        item: Item,
        version: int,
        reason: str,
        is_confirmed: bool,
        by: str,
        now_ms: int,
        confirm: Form | None = None,
    ) -> bool:
        """Decide to cancel the item's alert.

        Return False if the same person has already made this decision. `confirm` has the reviewer's confirmations, as
        `read_confirm` returns them. Raise Conflict if the item has changed meanwhile, and NotAllowed if the reason is
        missing or looks private.
        """
        decision = Decision("cancel", by, now_ms, version, {"reason": reason, **_confirm(confirm)})
        if _is_repeated(item, decision):
            return False
        _decide(item, decision, self.to_cancel(item, version, reason, is_confirmed, by, now_ms, confirm))
        return True

    def to_cancel(
        self,
        item: Item,
        version: int,
        reason: str,
        is_confirmed: bool,
        by: str,
        now_ms: int,
        confirm: Form | None = None,
    ) -> dict[str, Any]:
        """Return the request with which the item's alert is cancelled.

        Raise Conflict if the item has changed meanwhile, and NotAllowed if the reason is missing or looks private.
        """
        _expect(item, version, "live", is_cancel=True)
        if not reason.strip():
            raise NotAllowed([Trouble("reason", "Say why: those who had the alert are shown the reason.")])
        if not is_confirmed and (troubles := list(_text_troubles({"reason": reason}, confirmed_kinds(confirm)))):
            raise NotAllowed(troubles)
        body: dict[str, Any] = {"revision": item.revision + 1, "reason": reason}
        if not self._is_signed(item, (item.form or {}).get("category", item.category), of_cancel=True):
            body["approval"] = _approval(by, now_ms)
        return body | _confirm(confirm)

    def sign(self, item: Item, version: int, asked: SigningRequest, signature: Signature) -> bool:
        """Add a signature (Rule 5). Return whether there are now enough signatures.

        If so, the request is pending, and can be sent. Raise Conflict if the item has changed meanwhile.
        """
        signing = item.signing if item.signing and item.signing.form == asked.form else None
        if signing is None:
            _expect(item, version, "live" if item.revision else "waiting", is_cancel=asked.what == "cancel")
            signing = asked
        elif signing.has(signature.kid):
            return False  # a repeated signature
        # The item's version is not checked here. The signature covers exactly the text that the reviewer saw, so it is
        # valid for that text and no other, even if the reviewer's page is out of date.
        signing.signatures.append(signature)
        if signing.is_enough:
            item.signing = None
            _decide(
                item, Decision(signing.what, signature.by, signature.at, version, signing.draft), signing.approved()
            )
            return True
        item.signing = signing
        _decide(item, Decision("sign", signature.by, signature.at, version))
        return False

    def withdraw(self, item: Item, version: int, by: str, now_ms: int) -> None:
        """Stop collecting signatures for an item. Raise Conflict if the item has changed meanwhile."""
        if item.signing is None or item.version != version:
            raise Conflict("This has changed meanwhile. Look at it again.")
        item.signing = None
        _decide(item, Decision("withdraw", by, now_ms, version))

    def set_aside(self, item: Item, version: int, what: str, by: str, now_ms: int) -> bool:
        """Dismiss the item if `what` is "dismiss", or reopen it if `what` is "reopen".

        Return False if the same person has already made this decision. Raise Conflict if the item has changed
        meanwhile.
        """
        decision = Decision(what, by, now_ms, version)
        if _is_repeated(item, decision):
            return False
        before, after = ("waiting", "dismissed") if what == "dismiss" else ("dismissed", "waiting")
        _expect(item, version, before)
        item.state = after
        _decide(item, decision)
        return True


def _rounded(degrees: float | None) -> float | None:
    """Return degrees, rounded to about a metre, because further digits in a feed have no meaning."""
    return None if degrees is None else round(degrees, 5)


def _shape_troubles(form: Form) -> Iterator[Trouble]:
    if form.get("ring") is not None:
        if len(form["ring"]) < 3:
            yield Trouble("corners", "Draw three corners at least, or write them: latitude and longitude on each line.")
        return
    if form["lat"] is None or form["lng"] is None:
        yield Trouble("place", "Place the circle: the record has no coordinates.")
    if form["radius_m"] is None:
        yield Trouble("radius_m", "Say how far it reaches, in metres.")


def _shape(form: Form) -> dict[str, Any]:
    """Return the shape to request from the node: a circle, or the polygon that the reviewer has drawn."""
    if ring := form.get("ring"):
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    return {"type": "circle", **{key: form[key] for key in NUMBER_FIELDS}}


# ---- applying the node's answers ---------------------------------------------------------------------------------


def accept(item: Item, answer: Mapping[str, Any]) -> None:
    """Record that the node has accepted the item's pending request. `answer` is the node's answer."""
    assert item.pending is not None
    item.revision = answer["revision"]
    if item.pending.what == "cancel":
        item.state = "cancelled"
    else:
        item.state, item.form = "live", item.history[-1].form
        item.published = {key: answer[key] for key in ("area", "issued_at", "expires_at")}
    _settle(item, [])


def refuse(item: Item, troubles: list[Trouble]) -> None:
    """Record that the node has refused the item's pending request, and why.

    The item is then in the same state as before the decision.
    """
    _settle(item, troubles)


def observe(item: Item, seen: Mapping[str, Any]) -> bool:
    """Update the item from the node's answer to `GET /v1/alerts/{id}`; return whether anything has changed.

    The alert may have expired, or somebody may have revised it elsewhere.
    """
    before = item.state, item.revision, item.delivery
    alert = seen["alert"]
    if alert["revision"] > item.revision:
        item.published = {key: alert[key] for key in ("area", "issued_at", "expires_at")}
        item.version += 1
    item.state, item.revision = seen["state"], max(item.revision, alert["revision"])
    counts = seen.get("delivery")
    item.delivery = counts and {key: counts[key] for key in ("sent", "acked", "pushed", "rounded") if key in counts}
    return before != (item.state, item.revision, item.delivery)


def may_live(item: Item, now_ms: int) -> bool:
    """Return whether the item's alert may be live.

    If the node says "expired" before the alert's end, the node's clock may be wrong, and may be corrected later.
    """
    if item.state != "expired" or item.published is None:
        return item.state == "live"
    return now_ms < parse_time(item.published["expires_at"])


# ---- checking and recording decisions ----------------------------------------------------------------------------


def _is_repeated(item: Item, decision: Decision) -> bool:
    """Return whether the last decision was the same, by the same person and for the same version of the item (Rule 2).

    Publishing and revising count as the same here: after the first click was accepted, a second click would mean to
    revise.
    """
    if not item.history:
        return False
    last = item.history[-1]
    is_same = last.what == decision.what or {last.what, decision.what} == {"publish", "revise"}
    return is_same and replace(last, at=decision.at, what=decision.what) == decision


def _expect(item: Item, version: int, state: str, *, is_cancel: bool = False) -> None:
    """Raise Conflict if the item has another version or state, or if another decision is in progress.

    With `is_cancel`, collecting signatures does not count as a decision in progress.
    """
    is_free = item.pending is None and (item.signing is None or is_cancel)
    if item.version == version and item.state == state and is_free:
        return
    if item.history:
        last = item.history[-1]
        raise Conflict(f"{last.by} was first: {PAST[last.what]} at {format_time(last.at)[11:19]} UTC.")
    raise Conflict("This has changed meanwhile. Look at it again.")


def _decide(item: Item, decision: Decision, body: dict[str, Any] | None = None) -> None:
    item.history.append(decision)
    item.pending = None if body is None else Pending(decision.what, body)
    item.troubles, item.waits = [], ""
    item.version += 1


def _settle(item: Item, troubles: list[Trouble]) -> None:
    item.pending, item.troubles, item.waits = None, troubles, ""
    item.version += 1


def _approval(by: str, now_ms: int) -> dict[str, str]:
    return {"reviewer": by, "approved_at": format_time(now_ms)}


def confirmed_kinds(confirm: Form | None) -> list[str]:
    """Return the kinds of private-looking words (such as an address) that a person has confirmed."""
    return list((confirm or {}).get("text") or ())


def _confirm(confirm: Form | None) -> dict[str, Any]:
    """Return the member `confirm` of a request to the node: the confirmations that are not empty.

    Return an empty dict if all confirmations are empty.
    """
    named = {key: value for key, value in (confirm or {}).items() if value}
    return {"confirm": named} if named else {}


def _text_troubles(
    form: Form, confirmed: Collection[str] = (), asked: Collection[tuple[str, str]] = ()
) -> Iterator[Trouble]:
    for name in ("headline", "description", "reason"):
        for part in questions(form.get(name, "")):
            kind = NODE_KINDS.get(part.why or "", "")
            if kind in confirmed or (name, kind) in asked:
                continue
            yield Trouble(
                name, f"“{part.text}” reads like {ARTICLES[part.why or '']}. Take it out, or say that it is none."
            )


def read_form(sent: Mapping[str, Any]) -> Form:
    """Return the form that the reviewer has filled in, as the page has sent it.

    Its values are texts, finite numbers or None, and the confirmations. `ring` has the corners of a polygon as
    longitude and latitude, without the first one repeated at the end; it is None for a circle. Raise ValueError if a
    value is of the wrong kind.
    """
    form: Form = {}
    for key in TEXT_FIELDS:
        form[key] = sent.get(key, "")
        require_text(key, form[key])
    for key in NUMBER_FIELDS:
        value = form[key] = sent.get(key)
        if value is not None:
            _require_number(key, value)
    form["ring"] = None if sent.get("ring") is None else _read_ring(sent["ring"])
    form["confirmed"] = sent.get("confirmed") is True
    form["confirm"] = read_confirm(sent.get("confirm"))
    return form


def read_confirm(sent: object) -> Form:
    """Return what a reviewer has confirmed, from a request of the page.

    `area_km2` is the size of the confirmed area (a number or None), and `text` lists the kinds of private-looking words
    (such as an address) that the reviewer has confirmed. Raise ValueError if a value is of the wrong kind.
    """
    if sent is None:
        return {"area_km2": None, "text": []}
    if not isinstance(sent, dict):
        raise ValueError("confirm: an object is expected")
    area_km2, kinds = sent.get("area_km2"), sent.get("text", [])
    if area_km2 is not None:
        _require_number("confirm", area_km2)
    if not isinstance(kinds, list) or len(kinds) > MOST_KINDS:
        raise ValueError(f"confirm: a list of at most {MOST_KINDS} kinds is expected")
    return {"area_km2": area_km2, "text": [require_text("confirm", kind) for kind in kinds]}


def _require_number(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: a number is expected")
    if not abs(value) < MOST_NUMBER:
        raise ValueError(f"{key}: a number of at most {MOST_NUMBER:g} is expected")


def _read_ring(ring: object) -> list[list[float]]:
    if not isinstance(ring, list) or len(ring) > MOST_CORNERS:
        raise ValueError(f"ring: a list of at most {MOST_CORNERS:,} corners is expected")
    for corner in ring:
        if not isinstance(corner, list) or len(corner) != 2:
            raise ValueError("ring: corners of a longitude and a latitude are expected")
        for number in corner:
            _require_number("ring", number)
    return ring


def require_text(key: str, value: object) -> str:
    """Return the value if it is a string that can be sent.

    Raise ValueError if it is not a string, or contains lone surrogates.
    """
    if isinstance(value, str) and value.encode("utf-8", "replace").decode() == value:
        return value
    raise ValueError(f"{key}: a text is expected")
