"""The check of an approval when a request comes in (rules AP1 to AP8): pure functions of request, keys and time.

The *form* is the JSON text that reviewers sign; it has the whole content of an alert.

Rule 1  A node compares the form in the request with the entry that it would store (rule AP2). If they are equal, it
        stores the content of the form, with the signatures. So readers of the log need not trust anything but the form.
        And the exact place of the incident, which is only in the request, is not stored (rule B5).
Rule 2  Every signature must verify. If one does not, the whole request is refused, even if enough others do (rule AP3).
Rule 3  Persons are counted, not signatures, and the publisher never counts (rule AP5).
        Example: a reviewer has one key at work and one at home, both with the same `sub`, and signs with both. That is
        one approval.
Rule 4  All revisions of the alert decide how many reviewers are needed, not only the last one (rule HD1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..alertlog.chain import Kinds
from ..model import problems
from ..model.alert import Approval, ApprovalProof, Entry, Revision, Signature
from ..model.problems import Violation
from ..model.times import parse_time
from ..policy import SKEW_MS, Policy
from . import form
from .asked import asked, max_age_s
from .reviewers import Reviewers, out_of_envelopes
from .signatures import header_of, verifies

# The tolerances of the members that are in degrees. Two machines may get slightly different results for the centre of a
# cell, and the last decimal place of a published corner may differ by two.
TOLERANCES = {"lat": 1e-9, "lng": 1e-9, "coordinates": 2e-6}
_E = TypeVar("_E", bound=Entry)
_TIMES = ("occurred_at", "expires_at")
_MAY_BE_LOWER = ("revision", "expires_at")  # members that may have lower values in the form of a cancel (rule AP8)


@dataclass(frozen=True, slots=True)
class ApprovalCheck:
    """Checks the approvals in requests against a policy and the reviewers' keys.

    In the methods, `behind` is the set of the kinds (categories) of the alert's earlier revisions.
    """

    policy: Policy
    reviewers: Reviewers

    def needed(self, entry: Entry, behind: Kinds) -> int:
        """Return how many reviewers must sign `entry` (rule HD1).

        `behind` is the set of the kinds (categories) of the alert's earlier revisions.
        """
        return asked(self.policy, entry, behind)

    def form(self, entry: Entry, category: str) -> str | None:
        """Return the form of an entry, which is the text to sign; None if the policy names no audience.

        (The audience is the name of the deployment for which approvals are valid.)
        """
        if self.policy.audience is None:
            return None
        return form.text_of(form.form_of(entry, self.policy.audience, category))

    def break_glass(self, entry: Entry) -> list[str]:
        """Return the ids of those emergency keys (kept in sealed envelopes) with which an entry was signed."""
        kids = [header_of(each.protected).kid for each in entry.proof.signatures] if entry.proof else []
        return out_of_envelopes(kids, self.reviewers)

    def violations(
        self,
        entry: Entry,
        approved: ApprovalProof | None,
        alert: Revision,
        now_ms: int,
        behind: Kinds,
        *,
        fits: bool,
    ) -> list[Violation]:
        """Return what is wrong with the approval of `entry`, the entry that the node would store for a request.

        `approved` has the form and the signatures; None means that the request only names a reviewer (rule A11).
        `alert` is the entry itself if it is a revision; for a cancel it is the revision that the cancel follows. `fits`
        says whether the request breaks no other rule. If it breaks one, `entry` is not final, so it is not compared
        with the form.
        """
        needed = self.needed(entry, behind)
        if approved is None:
            return _missing(needed)
        found = list(self._differs(entry, approved, alert.alert.category)) if fits else []
        oldest_s = max_age_s(self.policy, entry, behind)
        if wrong := list(self._wrong_signatures(approved, alert.alert.occurred_at, oldest_s, now_ms)):
            return [*found, *wrong]
        persons = {self.reviewers[header_of(each.protected).kid].sub for each in approved.signatures}
        return [*found, *_missing(needed, len(persons - {entry.source}))]

    def proved(self, entry: _E, proof: ApprovalProof) -> _E:
        """Return `entry` with the content of the signed form.

        The form and its signatures become the entry's proof (Rule 1). Call this method only if `violations` has found
        none.
        """
        header = header_of(proof.signatures[0].protected)
        approval = Approval(self.reviewers[header.kid].sub, header.issued_at * 1000)  # by the first signature (NC7)
        said: Any = form.read(proof.form).says(entry)
        by: dict[str, Any] = {"approval": approval}
        if isinstance(entry, Revision):
            by = {"alert": replace(said.alert, approval=approval)}
        approved: _E = replace(said, proof=proof, **by)
        return approved

    def _differs(self, entry: Entry, proof: ApprovalProof, category: str) -> Iterator[Violation]:
        """Yield a violation if the form differs from the entry that the node would store (rule AP2)."""
        audience = self.policy.audience
        try:
            given = form.read(proof.form).members
        except ValueError:
            yield _not_approved("/approval/form", "is not a form of this version: get one from a dry run")
            return
        if audience is None:
            yield _not_approved("/approval/form", "names an audience, but the policy of this node has none")
        elif (name := first_difference(given, form.form_of(entry, audience, category))) is not None:
            yield _not_approved("/approval/form", f"differs from what the request would publish: {name}")

    def _wrong_signatures(
        self, proof: ApprovalProof, occurred_at: int, oldest_s: int | None, now_ms: int
    ) -> Iterator[Violation]:
        """Yield a violation for each signature that does not verify (rule AP3) or was made at a wrong time (rule AP4).

        `oldest_s` is the maximum age of a signature in seconds; None allows any age.
        """
        for n, signature in enumerate(proof.signatures):
            detail = self._wrong(signature, proof.form) or _untimely(signature, occurred_at, oldest_s, now_ms)
            if detail:
                yield _not_approved(f"/approval/signatures/{n}", detail)

    def _wrong(self, signature: Signature, text: str) -> str | None:
        try:
            header = header_of(signature.protected)
        except ValueError:
            return "has an invalid protected header: it needs exactly alg, typ, kid and iat"
        reviewer = self.reviewers.get(header.kid)
        if reviewer is None:
            return "names a key that belongs to no reviewer"
        return None if verifies(signature, text, reviewer.key) else "does not verify with the key that it names"


def _untimely(signature: Signature, occurred_at: int, oldest_s: int | None, now_ms: int) -> str | None:
    """Return a text that says why a signature is too old or too new (rule AP4), or None if its time is valid."""
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


def _missing(needed: int, have: int = 0) -> list[Violation]:
    """Return a list with one violation if fewer reviewers have signed than needed, else []."""
    if have >= needed:
        return []
    detail = f"needs signatures by {needed} reviewer{'s' * (needed > 1)} other than the publisher; {have} have signed"
    return [Violation(problems.APPROVALS_NEEDED, "/approval", detail, {"needed": needed, "have": have})]


def needed_of(policy: Policy, category: str) -> list[Violation]:
    """Return a list with one violation if the policy requires signatures for new alerts of this category, else [].

    It is called for alerts that can't be signed, such as those from CAP messages.
    """
    return _missing(policy.approvals(category))


def unsigned(policy: Policy, entry: Entry, behind: Kinds) -> list[Violation]:
    """Return a list with one violation if the policy requires signatures for `entry`, else [] (rule HD1).

    It is called for entries that can't be signed. `behind` is the set of the kinds (categories) of the alert's earlier
    revisions.
    """
    return _missing(asked(policy, entry, behind))


# ---- comparison of two forms by value (AP2) ------------------------------------------------------------------------


def first_difference(given: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Return the name of the first member that has different values in two forms; None if the forms are equal.

    The members are compared in the order of the form. If `given` has an additional member, return a text that says so
    without the member's name, because an answer repeats nothing that a client sent (rule H9).
    """
    lower = _MAY_BE_LOWER if expected["what"] == "cancel" else ()
    for name, value in expected.items():
        if name not in given or not _same(name, given[name], value, may_be_lower=name in lower):
            return name
    return "it has a member too many" if given.keys() - expected.keys() else None


def _same(name: str, given: Any, expected: Any, *, may_be_lower: bool) -> bool:
    if name in _TIMES:
        given, expected = parse_time(given), parse_time(expected)  # can't fail: `form.read` has already parsed them
    if may_be_lower:
        return bool(0 < given <= expected)
    return _equal(given, expected)


def _equal(given: Any, expected: Any, within: float = 0.0) -> bool:
    """Return whether two JSON values are equal.

    Numbers may differ by up to `within`, or by the tolerance of their member; true and false are not numbers.
    """
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(given, list) or len(given) != len(expected):
            return False
        return all(_equal(one, other, within) for one, other in zip(given, expected, strict=True))
    if isinstance(expected, Mapping):
        return (
            isinstance(given, dict)
            and given.keys() == expected.keys()
            and all(_equal(given[key], value, TOLERANCES.get(key, 0.0)) for key, value in expected.items())
        )
    if type(expected) in (int, float):
        return type(given) in (int, float) and abs(given - expected) <= within
    return type(given) is type(expected) and bool(given == expected)
