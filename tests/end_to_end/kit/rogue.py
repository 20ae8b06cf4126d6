"""A rogue that writes forged entries directly into the log, as one fault among others.

The nodes require two signatures in one category, in which only this module publishes: one *signed* alert for each visit
of the rogue, by the API, which everybody in town must receive. Then the rogue writes forged entries: later entries of
that alert and alerts of its own, one for each kind of forgery that a node distinguishes (rule NC3). All are well-formed
log entries. Nobody published them, so the history's verdict counts any frame of them as `outside`.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx
from end_to_end.kit.alerts import Json, alert, circle, new_id
from end_to_end.kit.call_load import CALLS
from end_to_end.kit.dispatcher import make_call_key
from end_to_end.kit.load import BELL_S, HEAL_S, TOWN_M, RecordedDesk, World, eventually
from end_to_end.kit.node import Node
from end_to_end.kit.proofs import AUDIENCE, Reviewer
from end_to_end.kit.times import stamp

from geocast.alertlog import AlertLog
from geocast.calls.encryption import CallKeys, parse_call_keys
from geocast.model.alert import ApprovalProof, Cancel, Entry, OtherKind, Revision, Signature
from geocast.model.errors import LogUnavailable

CATEGORY = "hostage"
POLICY = f"""
name = "nemesis"
audience = "{AUDIENCE}"

[categories.burglary]
title = "Burglary"

[categories.{CATEGORY}]
title = "Hostage situation"
approvals = 2
{CALLS}"""
REASONS = ("unsigned", "signature", "unknown-key", "too-few", "other-place")
COUNTED = re.compile(r'^geocast_log_untrusted_total\{.*reason="([\w-]+)".*\} ([0-9.]+)$', re.MULTILINE)

_T = TypeVar("_T")


class Guard(NamedTuple):
    """The options that make nodes require signatures, the reviewers, and the key for calls."""

    options: tuple[str, ...]
    people: list[Reviewer]
    call_keys: CallKeys


def guard_in(home: Path) -> Guard:
    """Write a policy with calls, three reviewers and a key for calls into a folder."""
    people = [Reviewer(f"r-{number}", f"key-{number}") for number in (1, 2, 3)]
    policy, reviewers, call_keys = home / "policy.toml", home / "reviewers.jwks", home / "call-keys.jwks"
    policy.write_text(POLICY)
    make_call_key(home)
    reviewers.write_text(json.dumps({"keys": [person.public() for person in people]}))
    keys = parse_call_keys(call_keys.read_bytes(), str(call_keys))
    files = {"--policy": policy, "--reviewers": reviewers, "--call-keys": call_keys}
    return Guard(tuple(str(word) for option in files.items() for word in option), people, keys)


@dataclass
class SigningDesk(RecordedDesk):
    """A desk that publishes with the signatures of two reviewers."""

    people: list[Reviewer] = field(default_factory=list)

    async def publish_signed(self) -> str:
        """Publish a short alert to everybody in town, wait until it is accepted, and return its id."""
        town = self.world.town
        body = alert(
            town,
            id=new_id("signed"),
            category=CATEGORY,
            area=[circle(town, 3 * TOWN_M)],
            expires_at=stamp(seconds=BELL_S),
            approval=None,
        )
        form = await self._form(body)
        signatures = [person.sign(form) for person in self.people[:2]]
        await self._begin(body, 1, "/v1/alerts", body | {"approval": {"form": form, "signatures": signatures}})
        await self.repeat_until_answered(unknown=0)
        return str(body["id"])

    async def _form(self, body: Json) -> str:
        """Return the form to sign, from a dry run at any node that answers."""
        forms: list[str] = []

        async def told() -> bool:
            node = self.dice.choice(self.world.nodes)
            try:
                answer = await self.api.post(f"{node.api.base_url}/v1/alerts", params={"dry_run": "true"}, json=body)
            except httpx.TransportError:
                return False
            if answer.status_code == 200:
                forms.append(answer.json()["form"])
            return bool(forms)

        assert await eventually(told, HEAL_S) is not None, "no node answers a dry run"
        return forms[0]


@dataclass
class Rogue:
    """A writer of forged entries, with access to the log and the key of one of the three reviewers."""

    world: World
    people: list[Reviewer]
    open_log: Callable[[], AlertLog]
    visits: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self.desk = SigningDesk(self.world, people=self.people)

    async def visit(self) -> None:
        """Have an alert signed and published, and write forged entries about it and about other alerts."""
        signed = await self.desk.publish_signed()
        async with self._log() as log:
            genuine = await self._found(log, signed)
            chains = forgeries(genuine, self.people[2])
            await asyncio.gather(*(self._write(log, chain) for chain in chains))
        self.visits += 1
        self.written += sum(map(len, chains))

    @asynccontextmanager
    async def _log(self) -> AsyncIterator[AlertLog]:
        log = self.open_log()
        await log.start()
        try:
            yield log
        finally:
            await log.stop()

    async def _found(self, log: AlertLog, alert_id: str) -> Revision:
        """Return the alert from the log, waiting because a former primary may not have it yet."""

        async def found() -> Sequence[Entry | OtherKind]:
            if not (entries := await log.history(alert_id)):
                raise LogUnavailable("the log lacks the accepted alert")
            return entries

        [entry] = await _insist(found)
        assert isinstance(entry, Revision)
        return entry

    async def _write(self, log: AlertLog, chain: Sequence[Entry]) -> None:
        for entry in chain:
            await _insist(lambda entry=entry: log.append(entry))  # type: ignore[misc]


async def _insist(act: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat an action while the log is unreachable.

    An entry that was stored although the answer was lost is not stored twice (LogA1).
    """
    deadline = time.monotonic() + HEAL_S
    while True:
        try:
            return await act()
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def forgeries(genuine: Revision, bribed: Reviewer) -> list[list[Entry]]:
    """Return the forged entries, a list for each alert; the list for the genuine alert has those that follow it."""
    assert genuine.proof is not None
    proof = genuine.proof
    longer = genuine.alert.expires_at + 3_600_000

    def other(made: Callable[[str], ApprovalProof | None] = lambda _form: None) -> Revision:
        """Return an alert of the rogue's own; `made` returns its proof for a form that names it."""
        own = new_id("rogue")
        forged = replace(genuine.alert, id=own, headline="Written behind everybody's back")
        return replace(genuine, alert=forged, proof=made(proof.form.replace(genuine.id, own)))

    def signed_by(*people: Reviewer) -> Callable[[str], ApprovalProof]:
        return lambda form: ApprovalProof(form, tuple(Signature(**person.sign(form)) for person in people))

    unsigned = other()
    strangers = (Reviewer("r-1", "a stranger's key"), Reviewer("r-2", "another's"))
    return [
        [unsigned, *_behind(unsigned, longer)],
        _behind(replace(genuine, proof=None), longer),
        [other(lambda _form: proof)],  # the proof of another alert
        [other(lambda form: ApprovalProof(form, proof.signatures))],  # the form was changed after it was signed
        [other(signed_by(*strangers))],
        [other(signed_by(bribed))],
        [replace(unsigned, alert=replace(unsigned.alert, id=new_id("rogue"), category="unheard-of"))],
    ]


def _behind(first: Revision, ends_at: int) -> list[Entry]:
    """Return a longer revision, a revision in a category that needs no signature (rule HD1), and a cancel."""
    revision = replace(first, revision=2, alert=replace(first.alert, headline="Run", expires_at=ends_at))
    eased = replace(revision, revision=3, alert=replace(revision.alert, category="burglary"))
    cancel = Cancel(
        id=first.id,
        revision=4,
        reason="All is well",
        approval=first.alert.approval,
        source=first.source,
        cancelled_at=first.issued_at,
        ends_at=ends_at,
    )
    return [revision, eased, cancel]


def set_aside(node: Node) -> Counter[str]:
    """Return the number of entries that a node has rejected since its start, by reason."""
    counted: Counter[str] = Counter()
    for reason, count in COUNTED.findall(node.api.get("/metrics").text):
        counted[reason] += int(float(count))
    return counted
