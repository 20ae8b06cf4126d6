"""Connects the desk to the node: repeats each decision until the node answers, and follows the live alerts.

Only this module has the publisher's token.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from client_demo.python.publisher import Answer, Publisher, PublishError, Refused, Unanswered
from client_demo.staff_page.decisions import Conflict, NotAllowed, RequestTasks, Trouble

from .queue import Form, Item, Pending, Queue, Sighting, accept, may_live, observe, refuse
from .refusals import troubles
from .signing import Signature, SigningRequest
from .store import Store, StoreError
from .triage import Policy

log = logging.getLogger("client_demo")

LOOK_EVERY_S = 1.0
POLICY_EVERY_S = 30.0
AGAIN_S = 1.0
MOST_ASKED = 8  # unsigned forms kept for each item, because somebody may be reading them before signing
SILENT = "The node does not answer. Decisions are stored and will be sent."
CHANGED_ELSEWHERE = ("id-conflict", "revision-conflict", "alert-ended", "unknown-alert")

Changed = Callable[[str], None]  # called with the id of an item, or with "" for the state of the desk as a whole


class AlertControl:
    """Sends reviewers' decisions to the node, and follows the state of their alerts there.

    `changed` is called whenever the page must be updated: with the id of an item, or with "" for the desk as a whole.
    """

    def __init__(
        self, publisher: Publisher, queue: Queue, store: Store, changed: Changed, clock: Callable[[], int]
    ) -> None:
        self.queue = queue
        self._publisher, self._store, self._changed, self._clock = publisher, store, changed, clock
        # Returns, for an item and a form, a request that nobody has signed yet.
        self._asked: dict[str, dict[str, SigningRequest]] = {}
        self._requests = RequestTasks()
        self.trouble = ""  # the problem with the node, or ""
        self.feed_title, self.feed_trouble = "", ""

    async def run(self) -> None:
        """Resume the requests that the node has not answered, and follow the live alerts, until cancelled."""
        for item in self.queue:
            if item.pending is not None:
                self._send(item)
        try:
            await asyncio.gather(self._watch_alerts(), self._watch_policy())
        finally:
            await self._requests.cancel()

    # ---- incidents of the feed -----------------------------------------------------------------------------

    def take(self, sightings: Iterable[Sighting]) -> None:
        """Add incidents to the desk as the feed reports them, or update those that are there already."""
        new = [item for seen in sightings if (item := self.queue.take(seen)) is not None]
        gone = set(self.queue.trim())
        for item in new:
            if item.id not in gone:
                self._changed(item.id)
        if gone:
            self._changed("")

    def tell_feed(self, title: str, trouble: str) -> None:
        """Set the title of the feed, as the page shows it, and the feed's problem ("" if it has none)."""
        if (title, trouble) != (self.feed_title, self.feed_trouble):
            self.feed_title, self.feed_trouble = title, trouble
            self._changed("")

    # ---- decisions of reviewers ----------------------------------------------------------------------------

    async def preview(self, item: Item, form: Form, by: str) -> dict[str, Any]:
        """Return a preview of the alert that the reviewer has filled in, and all reasons why it can't be published.

        The desk's own reasons come first, then those of the node, which are found by a dry run.
        """
        now_ms = self._clock()
        refused: list[Trouble] = []
        answer: Answer = {}
        if _is_complete(item, form):
            body = self.queue.body(item, form, by, now_ms)
            try:
                if item.revision:
                    answer = await self._publisher.revise(body, dry_run=True)
                else:
                    unknown = {"id": uuid.uuid4().hex}  # an id that no alert has
                    answer = await self._publisher.publish(body | unknown, dry_run=True)
            except Refused as refusal:
                refused = troubles(refusal)
            except Unanswered:
                refused = [Trouble("", "The node does not answer: nothing can be published at the moment.")]
        asked = {(each.field, each.held["kind"]) for each in refused if each.held}
        found = self.queue.troubles(item, form, now_ms, asked)
        found += [each for each in refused if each not in found]
        return {
            "troubles": found,
            "area": answer.get("area"),
            "expires_at": answer.get("expires_at"),
            "version": item.version,
        }

    def approve(self, item: Item, version: int, form: Form, by: str) -> None:
        """Publish the item's alert, or revise it if it is live.

        Raise Conflict if the item has changed meanwhile, and NotAllowed if the form can't be published.
        """
        if self.queue.approve(item, version, form, by, self._clock()):
            self._begin(item)

    def cancel(
        self, item: Item, version: int, reason: str, is_confirmed: bool, by: str, confirm: Form | None = None
    ) -> None:
        """Cancel the item's alert.

        Raise Conflict if the item has changed meanwhile, and NotAllowed if the reason is missing or looks private.
        """
        if self.queue.cancel(item, version, reason, is_confirmed, by, self._clock(), confirm):
            self._begin(item)

    async def ask_to_approve(self, item: Item, version: int, form: Form, by: str) -> SigningRequest | None:
        """Return the text that reviewers must sign to publish or revise the alert; None if no signature is needed.

        Raise Conflict if the item has changed meanwhile, and NotAllowed if the form can't be published.
        """
        body = self.queue.to_approve(item, version, form, by, self._clock())
        return await self._ask(item, SigningRequest("revise" if item.revision else "publish", body, "", 0, form))

    async def ask_to_cancel(
        self, item: Item, version: int, reason: str, is_confirmed: bool, by: str, confirm: Form | None = None
    ) -> SigningRequest | None:
        """Return the text that reviewers must sign to cancel the alert; None if no signature is needed.

        Raise Conflict if the item has changed meanwhile, and NotAllowed if the alert can't be cancelled like this.
        """
        body = self.queue.to_cancel(item, version, reason, is_confirmed, by, self._clock(), confirm)
        draft = {"reason": reason} | {key: body[key] for key in ("confirm",) if key in body}
        return await self._ask(item, SigningRequest("cancel", body, "", 0, draft))

    async def _ask(self, item: Item, signing: SigningRequest) -> SigningRequest | None:
        if "approval" in signing.body:
            return None
        try:
            answer = await self._call(item.alert_id, Pending(signing.what, signing.body), dry_run=True)
        except Refused as refusal:
            raise NotAllowed(troubles(refusal)) from None
        except Unanswered:
            raise NotAllowed([Trouble("", "The node does not answer: nothing can be signed at the moment.")]) from None
        if "form" not in answer:
            raise NotAllowed([Trouble("", "The node's policy has changed. Try again in a moment.")])
        signing.form, signing.needed = answer["form"], answer["approvals"]
        asked = self._asked.setdefault(item.id, {})
        asked[signing.form] = signing
        while len(asked) > MOST_ASKED:
            del asked[next(iter(asked))]
        return signing

    def sign(self, item: Item, version: int, form: str, signature: Signature) -> None:
        """Add a reviewer's signature. If no more signatures are needed, send the request to the node.

        Raise Conflict if the text that was signed is no longer the one to sign.
        """
        asked = item.signing if item.signing and item.signing.form == form else self._asked.get(item.id, {}).get(form)
        if asked is None:
            raise Conflict("You have signed a text that was not requested, or no longer is. Look at it again.")
        if self.queue.sign(item, version, asked, signature):
            self._begin(item)
        else:
            self._kept(item)
        if item.signing is None or item.signing.form != form:
            self._asked.pop(item.id, None)

    def withdraw(self, item: Item, version: int, by: str) -> None:
        """Stop collecting signatures for an item. Raise Conflict if the item has changed meanwhile."""
        self.queue.withdraw(item, version, by, self._clock())
        self._kept(item)

    def set_aside(self, item: Item, version: int, what: str, by: str) -> None:
        """Dismiss an item, or reopen a dismissed one. Raise Conflict if the item has changed meanwhile."""
        if self.queue.set_aside(item, version, what, by, self._clock()):
            self._kept(item)

    def _kept(self, item: Item) -> None:
        if not self._is_saved(item):
            item.troubles = [Trouble("", "The desk can't write to its disk: a restart would lose this decision.")]
        self._changed(item.id)

    async def answered(self, item: Item, most_s: float) -> None:
        """Wait until the node has answered the item's pending request, for at most `most_s` seconds."""
        await self._requests.answered(item.id, most_s)

    # ---- sending requests to the node ----------------------------------------------------------------------

    def _begin(self, item: Item) -> None:
        if self._is_saved(item):  # stored before it is sent (Rule 3 of `queue`)
            self._send(item)
        else:
            refuse(item, [Trouble("", "The desk can't write to its disk. Nothing was sent.")])
        self._changed(item.id)

    def _is_saved(self, item: Item) -> bool:
        try:
            self._store.save(item)
        except StoreError as error:
            log.error("%s", error)
            return False
        return True

    def _send(self, item: Item) -> None:
        self._requests.start(item.id, lambda: self._until_answered(item))

    async def _until_answered(self, item: Item) -> None:
        while item.pending is not None:
            await self._attempt(item, item.pending)
        self._is_saved(item)  # if this fails, a restarted desk sends the request once more, which changes nothing
        self._changed(item.id)

    async def _attempt(self, item: Item, pending: Pending) -> None:
        try:
            accept(item, await self._call(item.alert_id, pending))
        except Refused as refusal:
            if refusal.slug in CHANGED_ELSEWHERE:
                await self._catch_up(item)
            refuse(item, troubles(refusal))
        except Unanswered:
            item.waits = "The node has not answered yet. The same request is being repeated."
            self._changed(item.id)
            await asyncio.sleep(AGAIN_S)

    def _call(self, alert_id: str, pending: Pending, *, dry_run: bool = False) -> Any:
        match pending.what:
            case "publish":
                return self._publisher.publish(pending.body, dry_run=dry_run)
            case "revise":
                return self._publisher.revise(pending.body, dry_run=dry_run)
            case _:
                return self._publisher.cancel(alert_id, pending.body, dry_run=dry_run)

    async def _catch_up(self, item: Item) -> None:
        """Read the alert from the node, because somebody has changed it elsewhere, and update the item."""
        with contextlib.suppress(PublishError):
            observe(item, await self._publisher.get(item.alert_id))

    # ---- following the alerts and the policy of the node ---------------------------------------------------

    async def _watch_alerts(self) -> None:
        while True:
            for item in [item for item in self.queue if item.pending is None and may_live(item, self._clock())]:
                await self._look_at(item)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_at(self, item: Item) -> None:
        state = item.state
        try:
            seen = await self._publisher.get(item.alert_id)
        except Refused:
            return  # the alert is unknown: it ended a day ago, or the node has lost its log
        except Unanswered:
            self._tell_node(SILENT)
            return
        self._tell_node("")
        if item.pending is None and observe(item, seen):
            if item.state != state:
                self._is_saved(item)
            self._changed(item.id)

    async def _watch_policy(self) -> None:
        while True:
            await asyncio.sleep(POLICY_EVERY_S)
            try:
                self.queue.follow(Policy.from_map(await self._publisher.policy()))
                self._tell_node("")
            except Refused as refusal:
                self._tell_node(troubles(refusal)[0].text)
            except Unanswered:
                self._tell_node(SILENT)

    def _tell_node(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._changed("")


def _is_complete(item: Item, form: Form) -> bool:
    """Return whether the form is complete enough to be sent to the node as a dry run."""
    ring = form["ring"]
    is_whole = None not in (form["lat"], form["lng"], form["radius_m"]) if ring is None else len(ring) > 2
    return is_whole and bool(form["category"]) and item.sighting.incident.occurred_at is not None
