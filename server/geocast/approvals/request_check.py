"""What is asked of an approval when a request comes (AP1 to AP8): pure functions of the request, the keys and the time.

Rule 1  What is stored is what the form says, once it is seen to say what the request comes to (AP2). So nobody has to
        believe what stands beside it, and nothing of the exact place goes further (B5).
Rule 2  Nothing that is wrong is passed over: a signature that does not verify refuses the request (AP3).
Rule 3  Persons are counted, not signatures; the publisher is none of them (AP5).
Rule 4  How many are needed is decided by all revisions of the alert, not by the last one (HD1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..alertlog.chain import NO_KINDS, Kinds
from ..clock import parse_time
from ..model import problems
from ..model.alert import Approval, ApprovalProof, Entry, Revision, Signature
from ..model.problems import Violation
from ..policy import SKEW_MS, Policy
from . import form
from .asked import asked, max_age_s
from .reviewers import Reviewers, out_of_envelopes
from .signatures import header_of, verifies

CIRCLE_TOLERANCE = 1e-9  # degrees: what two machines may differ by when they work out a cell's centre
POLYGON_TOLERANCE = 2e-6  # degrees: two units of the last decimal of a published corner
_E = TypeVar("_E", bound=Entry)
_TIMES = ("occurred_at", "expires_at")
_MAY_BE_LOWER = ("revision", "expires_at")  # in a cancel (AP8)


@dataclass(frozen=True, slots=True)
class ApprovalCheck:
    """What is asked of approvals by a policy, and whose signatures count."""

    policy: Policy
    reviewers: Reviewers

    def needed(self, entry: Entry, behind: Kinds) -> int:
        """Return how many reviewers an entry needs behind revisions of these kinds (HD1)."""
        return asked(self.policy, entry, behind)

    def form(self, entry: Entry, category: str) -> str | None:
        """What reviewers are to sign (step 1); None where the policy names no audience."""
        if self.policy.audience is None:
            return None
        return form.text_of(form.form_of(entry, self.policy.audience, category))

    def break_glass(self, entry: Entry) -> list[str]:
        """The `kid`s of the keys out of an envelope (break glass) by which an entry was approved."""
        kids = [header_of(each.protected).kid for each in entry.proof.signatures] if entry.proof else []
        return out_of_envelopes(kids, self.reviewers)

    def violations(
        self,
        entry: Entry,
        approved: ApprovalProof | None,
        alert: Revision,
        now_ms: int,
        behind: Kinds = NO_KINDS,
        *,
        fits: bool = True,
    ) -> list[Violation]:
        """What is wrong with the approval of the entry that a request comes to; None: it was approved by word (A11).

        `alert`: the revision that a cancel follows; of a revision itself. `behind`: the kinds of the revisions before
        the entry. `fits`: whether the request breaks no other rule, so that it is known what it comes to.
        """
        needed = self.needed(entry, behind)
        if approved is None:
            return [_too_few(needed, 0)] if needed else []
        found = list(self._differs(entry, approved, alert.alert.category)) if fits else []
        wrong = list(
            self._wrong_signatures(approved, alert.alert.occurred_at, max_age_s(self.policy, entry, behind), now_ms)
        )
        if wrong:
            return [*found, *wrong]
        persons = {self.reviewers[header_of(each.protected).kid].sub for each in approved.signatures}
        have = len(persons - {entry.source})
        return [*found, *([_too_few(needed, have)] if have < needed else [])]

    def proved(self, entry: _E, proof: ApprovalProof) -> _E:
        """The entry as its form says it, with its proof (Rule 1). `violations` has found nothing wrong with it."""
        header = header_of(proof.signatures[0].protected)
        approval = Approval(self.reviewers[header.kid].sub, header.issued_at * 1000)  # NC7
        said: Any = form.read(proof.form).says(entry)
        by: dict[str, Any] = {"approval": approval}
        if isinstance(entry, Revision):
            by = {"alert": replace(said.alert, approval=approval)}
        approved: _E = replace(said, proof=proof, **by)
        return approved

    def _differs(self, entry: Entry, proof: ApprovalProof, category: str) -> Iterator[Violation]:
        """AP2: whether the form says what the request comes to."""
        audience = self.policy.audience
        try:
            given = form.read(proof.form).members
        except ValueError:
            yield _not_approved("/approval/form", "is not a form of this version: ask for it by a dry run")
            return
        if audience is None:
            yield _not_approved("/approval/form", "names an audience, and the policy of this node has none")
        elif (name := first_difference(given, form.form_of(entry, audience, category))) is not None:
            yield _not_approved("/approval/form", f"says something else than the request comes to: {name}")

    def _wrong_signatures(
        self, proof: ApprovalProof, occurred_at: int, oldest_s: int | None, now_ms: int
    ) -> Iterator[Violation]:
        """Name each signature that is not good or, with `oldest_s`, too old, and why (AP3, AP4)."""
        for n, signature in enumerate(proof.signatures):
            detail = self._wrong(signature, proof.form) or _untimely(signature, occurred_at, oldest_s, now_ms)
            if detail:
                yield _not_approved(f"/approval/signatures/{n}", detail)

    def _wrong(self, signature: Signature, text: str) -> str | None:
        try:
            header = header_of(signature.protected)
        except ValueError:
            return "has another protected header than an approval's: alg, typ, kid and iat"
        reviewer = self.reviewers.get(header.kid)
        if reviewer is None:
            return "names a key that is none of the reviewers'"
        return None if verifies(signature, text, reviewer.key) else "does not verify by the key that it names"


def _untimely(signature: Signature, occurred_at: int, oldest_s: int | None, now_ms: int) -> str | None:
    """AP4: why a signature is too old or too new, if it is."""
    issued_at, now_s = header_of(signature.protected).issued_at, now_ms // 1000
    if issued_at < occurred_at // 1000:
        return "was made before occurred_at"
    if issued_at > now_s + SKEW_MS // 1000:
        return "was made in the future (60 s of skew allowed)"
    if oldest_s is not None and now_s - issued_at > oldest_s:
        return f"was made more than {oldest_s} s ago"
    return None


def _not_approved(pointer: str, detail: str) -> Violation:
    return Violation(problems.NOT_APPROVED, pointer, detail)


def _too_few(needed: int, have: int) -> Violation:
    detail = f"has to be signed by {needed} reviewer{'s' * (needed > 1)} other than the publisher; {have} have"
    return Violation(problems.APPROVALS_NEEDED, "/approval", detail, {"needed": needed, "have": have})


def needed_of(policy: Policy, category: str) -> list[Violation]:
    """What is wrong with an alert that can't be signed, such as one from CAP: it is taken where nothing is asked."""
    needed = policy.approvals(category)
    return [_too_few(needed, 0)] if needed else []


def unsigned(policy: Policy, entry: Entry, behind: Kinds) -> list[Violation]:
    """Return what is wrong with an entry that can't be signed, behind revisions of these kinds (HD1)."""
    needed = asked(policy, entry, behind)
    return [_too_few(needed, 0)] if needed else []


# ---- AP2: the same by value ------------------------------------------------------------------------------------


def first_difference(given: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The first member in which two forms differ by value, in the order of the form; None if there is none.

    One that is not expected is not named (H9).
    """
    lower = _MAY_BE_LOWER if expected["what"] == "cancel" else ()
    for name, value in expected.items():
        if name not in given or not _same(name, given[name], value, may_be_lower=name in lower):
            return name
    return "there is a member too many" if given.keys() - expected.keys() else None


def _same(name: str, given: Any, expected: Any, *, may_be_lower: bool) -> bool:
    if name in _TIMES:
        given, expected = parse_time(given), parse_time(expected)  # the form has been read: it is a time
    if name == "area":
        return len(given) == len(expected) and all(map(_same_shape, given, expected))
    if may_be_lower:
        return bool(0 < given <= expected)
    return _equal(given, expected)


def _same_shape(given: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    within = POLYGON_TOLERANCE if expected["type"] == "Polygon" else CIRCLE_TOLERANCE
    return given.keys() == expected.keys() and all(
        _equal(given[name], value, within if name in ("lat", "lng", "coordinates") else 0.0)
        for name, value in expected.items()
    )


def _equal(given: Any, expected: Any, within: float = 0.0) -> bool:
    """Whether two values of JSON are equal, numbers by value and as close as this; true is no number."""
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(given, list) or len(given) != len(expected):
            return False
        return all(_equal(one, other, within) for one, other in zip(given, expected, strict=True))
    if isinstance(expected, Mapping):
        return (
            isinstance(given, dict)
            and given.keys() == expected.keys()
            and all(_equal(given[key], value) for key, value in expected.items())
        )
    if type(expected) in (int, float):
        return type(given) in (int, float) and abs(given - expected) <= within
    return type(given) is type(expected) and bool(given == expected)
