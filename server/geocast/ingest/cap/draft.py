"""Makes drafts from a CAP message (rules CP21 to CP25). A draft is an alert as it would be published.

A message consists of one or more blocks. Each block becomes one alert, and has its content in one or more languages.

    Block ── category (P13) ── shapes ── times ── texts ──> Draft ── accept(id, current) ──> Alert, as published
                 │               │         │
                 └───────────────┴─────────┴── the broken rules of all blocks together ──> 422

A draft depends only on the message, the policy and the source's grants. `accept` then makes the alert. It also
needs the alert's id and the alert's previous revision, if there is one; they are known only when the log has been read.
The exact shapes of the message exist only in the draft. The alert has only the published shapes, which are coarser; the
same holds for the requests of publishers (`wire.requests`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...approvals.request_check import needed_of
from ...geometry.coarse_cover import GRIDS, around, few
from ...geometry.polygon_union import MAX_WORK as MAX_JOINED
from ...geometry.polygon_union import Piece
from ...geometry.published_polygon import (
    MAX_COMPARED,
    MAX_PIECES,
    RequestedPolygon,
    TooComplex,
    publish_polygons,
    smallest_circle,
    split_rings,
)
from ...geometry.sphere import Disc
from ...model import problems
from ...model.alert import MAX_TEXTS, NOTHING_CONFIRMED, AcceptedTerms, Alert, AlertText, Approval, Revision
from ...model.problems import Problem, Violation
from ...policy import SKEW_MS, Category, Policy
from ...policy.ages import IN_THE_FUTURE
from ...policy.publishers.bounds import Bounds
from ...wire.requests import OutsideShape, Publication, area_of, outside_shape
from .language_groups import Block
from .message import Area, CapMessage, Info
from .shapes import MAX_WORK, CapCircle, CapRing
from .sources import CapSource
from .texts import cut
from .zones import MAX_SHAPES, Zones, joined

MAX_TITLE, MAX_AREA_DESC = 140, 280
MAX_NAMED = 5  # the largest number of lists of codes that an error names
_NAMEABLE = re.compile(r"[A-Za-z0-9_:. -]{1,60}")


@dataclass(frozen=True, slots=True)
class Draft:
    """An alert as it would be published, made from one part (block) of a CAP message. All slow work is done.

    `info` is the content of the block in its first language. `notes` name what was changed or left out.
    `areas_left_out` is the number of areas whose shape is not known, or only in part.
    """

    request: Publication
    category: Category
    texts: tuple[AlertText, ...]
    info: Info
    notes: frozenset[str]
    areas_left_out: int

    @property
    def expires_at(self) -> int:
        """The time at which the alert ends, in ms since 1970."""
        return self.request.expires_at or 0

    def may_follow(self, current: Revision) -> bool:
        """Return whether this draft may become the next revision after `current` (rules CP17 and P6).

        The draft must have the same status as `current`. It must end no earlier than `current`, and no later than the
        category allows.
        """
        alert = current.alert
        latest = alert.occurred_at + self.category.lasting.max_age_ms
        return alert.status == self.request.status and current.ends_at <= self.expires_at <= latest

    def terms(self, policy: Policy, current: Revision | None) -> AcceptedTerms:
        """Return the values of the policy that are stored with the revision made from this draft.

        Their `title` is the name of the CAP event.
        """
        return replace(policy.terms(self.category, current), title=self.texts[0].title)

    def accept(self, alert_id: str, terms: AcceptedTerms, current: Revision | None) -> Alert:
        """Return the draft as an alert with the id `alert_id`.

        `current` is the revision that the draft will follow; None if the draft becomes revision 1.
        """
        alert = self.request.accept(terms, current)
        begins_at = self.info.begins_at
        return replace(
            alert,
            id=alert_id,
            occurred_at=alert.occurred_at if current is None else current.alert.occurred_at,
            texts=self.texts,
            urgency=self.info.urgency,  # type: ignore[arg-type]  # always one of the allowed words
            certainty=self.info.certainty,  # type: ignore[arg-type]
            onset_at=None if begins_at is None or begins_at <= self.request.occurred_at else begins_at,
            web=self.info.web,
        )


def has_ended(block: Block, now_ms: int) -> bool:
    """Return whether a block (the content of one alert) has expired according to the `expires` of its issuer."""
    expires_at = block.infos[0].expires_at
    return expires_at is not None and expires_at <= now_ms


@dataclass(eq=False, repr=False)
class Drafter:
    """Makes the drafts of one message, which are the alerts as they would be published.

    `bounds` are the limits of what the source may publish.
    """

    message: CapMessage
    source: CapSource
    policy: Policy
    bounds: Bounds
    now_ms: int
    zones: Zones

    def drafts(self, blocks: Sequence[Block]) -> list[Draft]:
        """Return a draft for each of these blocks of the message. A block is the content of one alert.

        The draft that ends last comes first. The ids of all alerts are made from the id of the first one. Because the
        first one ends last, the log remembers its id at least as long as any of the others. Raise Problem (422) with
        every rule that any of the blocks breaks.
        """
        if sum(shape.work for block in blocks for shape in block.shapes) > MAX_WORK:
            detail = f"must have shapes of at most {MAX_WORK} corners, all alerts of the message together"
            raise Problem.of([Violation(problems.AREA_TOO_COMPLEX, "/alert/info", detail)])
        made = [self._draft(block, len(blocks)) for block in blocks]
        if violations := [each for found in made if not isinstance(found, Draft) for each in found]:
            raise Problem.of(violations)
        return sorted((each for each in made if isinstance(each, Draft)), key=lambda draft: -draft.expires_at)

    def _draft(self, block: Block, blocks: int) -> Draft | list[Violation]:
        """Return the draft of a block (the content of one alert), or the violations if the block breaks a rule.

        The whole message has a limit of work, which is divided equally among its `blocks` (rule HD3).
        """
        at = f"/alert/info/{block.at}"
        key = self.policy.category_of(block.infos)
        if key is None:
            broken = [Violation(problems.CATEGORY_NOT_ALERTABLE, f"{at}/event", "matches no category of the policy")]
            if self.message.sent > self.now_ms + SKEW_MS:  # rule P5 can be checked without a category (HD14)
                broken.append(Violation(problems.NOT_YET, "/alert/sent", IN_THE_FUTURE))
            return broken
        category, notes = self.policy.categories[key], set[str]()
        placed = _Placed(block, at, category, self.zones, blocks)
        if placed.violations:
            return placed.violations
        texts = tuple(self._texts(block, notes))
        request = self._request(block, key, category, placed, texts[0], notes)
        if broken := [*self._policy_violations(request, placed, at)]:
            return broken
        request.precompute(category.simplify_m)
        published = request.published(category.terms(None), None) or ()
        if any(getattr(shape, "buffer_m", 0) > _UNSIMPLIFIED_M for shape in published):
            notes.add("simplified")
        return Draft(request, category, texts, block.infos[0], frozenset(notes | placed.notes), placed.left_out)

    def _request(
        self, block: Block, key: str, category: Category, placed: "_Placed", text: AlertText, notes: set[str]
    ) -> Publication:
        message, info = self.message, block.infos[0]
        if info.severity is None:
            notes.add("severity-default")
        return Publication(
            id="",
            category=key,
            headline=text.headline,
            description=text.description,
            severity=info.severity or category.unknown_severity,  # type: ignore[arg-type]  # always an allowed word
            status=message.status.lower(),  # type: ignore[arg-type]  # messages with others are ignored (CP9)
            threat="community",
            occurred_at=message.sent,
            expires_at=self._expires_at(info, category, notes),
            area=area_of(shape for _, shape in placed.shapes),
            approval=Approval(self.source.approver, message.sent),
            revision=1,
            one_shape=False,
            confirm=NOTHING_CONFIRMED,
        )

    def _expires_at(self, info: Info, category: Category, notes: set[str]) -> int:
        if info.expires_at is None:
            notes.add("expiry-default")
            return self.message.sent + category.lasting.default_age_ms
        latest = self.message.sent + category.lasting.max_age_ms
        if info.expires_at > latest:
            notes.add("expiry-cut")
        return min(info.expires_at, latest)

    def _policy_violations(self, request: Publication, placed: "_Placed", at: str) -> Iterator[Violation]:
        """Yield each violation of the policy, or of the source's limits, in the request that was made from a block.

        The pointers of the violations name elements of the CAP message, not members of the request (rule CP25). `at` is
        the pointer to the block.
        """
        circles = tuple((where, each[2]) for where, each in placed.shapes if not isinstance(each, RequestedPolygon))
        outlines = tuple((where, each) for where, each in placed.shapes if isinstance(each, RequestedPolygon))
        # A message can't say that a person has confirmed a large area or suspicious words. So `confirm` is None, which
        # means that the rules that ask for a confirmation (P23 and P24) are not checked. Nor is the time of approval.
        facts = replace(request.facts(), approved_at=None, radii=circles, polygons=outlines, texts=(), confirm=None)
        bounds = self.bounds
        found = self.policy.violations(facts, self.now_ms, max_radius_m=bounds.max_radius_m)
        unsigned = needed_of(self.policy, request.category)
        for each in [*found, *bounds.violations(facts, placed.outside_jurisdiction(bounds)), *unsigned]:
            pointer = each.pointer.removesuffix("/type").removesuffix("/coordinates")
            yield replace(each, pointer=_POINTERS[pointer].format(at=at) if pointer in _POINTERS else pointer)

    # ---- the texts of a draft --------------------------------------------------------------------------------------

    def _texts(self, block: Block, notes: set[str]) -> Iterator[AlertText]:
        limits = self.policy.cap.texts

        def short(text: str, limit: int) -> str:
            found = cut(text, limit)
            if found != text:
                notes.add("text-cut")
            return found

        if len(block.infos) > MAX_TEXTS:
            notes.add("text-cut")
        for info in block.infos[:MAX_TEXTS]:
            places = "; ".join(dict.fromkeys(area.description for area in info.areas if area.description))
            yield AlertText(
                language=info.language,
                title=short(info.event, MAX_TITLE),
                headline=short(info.headline, limits.headline),
                description=short(info.description, limits.description) or None,
                instruction=short(info.instruction, limits.instruction) or None,
                area_desc=short(places, MAX_AREA_DESC) or None,
            )


# Maps each request member that a violation can name to the CAP element that the member was made from.
_POINTERS = {
    "/occurred_at": "/alert/sent",
    "/status": "/alert/status",
    "/expires_at": "{at}/expires",
    "/category": "{at}/event",
    "/severity": "{at}/severity",
    "/area": "{at}/area",
    "/approval": "{at}/event",  # the category, which follows from the event, decides which approval is needed
}
_UNSIMPLIFIED_M = 20.0  # the widest buffer without simplification; it makes up for edges that are not arcs (B9)


class _Placed:
    """The shapes of one alert that is made from a CAP message (CP22 to CP24).

    `notes` name what was changed, and `violations` what is wrong, for instance that there is no shape. `shapes` has
    pairs: a pointer to the area in the message, and a shape. The shape is a polygon, or a circle as (latitude,
    longitude, radius in metres). Together, the shapes cover all areas of the message whose place is known. There are at
    most MAX_SHAPES of them, and they can be published.

    A shape with too many corners is simplified instead of refused (rule HD10). Example: a warning for a coast has a
    ring of 7,000 corners and 40 islets. The shapes are simplified by up to the category's `simplify_m`. If they still
    have too many corners, they are replaced by fewer and coarser shapes that cover them.
    """

    def __init__(self, block: Block, at: str, category: Category, zones: Zones, blocks: int) -> None:
        self.shapes: list[tuple[str, RequestedPolygon | Disc]] = []
        self.notes: set[str] = set()
        self.violations: list[Violation] = []
        self._at = f"{at}/area"
        self._category = category
        self._blocks = blocks
        areas = [(f"{at}/area/{n}", area) for n, area in enumerate(block.infos[0].areas)]
        shapes = _distinct_shapes(areas)
        points = [(where, each) for where, each in shapes if isinstance(each, CapCircle) and not each.radius_m]
        self._said = [(where, each) for where, each in shapes if isinstance(each, CapRing) or each.radius_m]
        self._coded, self.left_out = _zones_of(areas, zones)
        if not (shapes or self._coded):
            self.left_out = 0
        if self.left_out:
            self.notes.add("area-partial")
        if (self._said or self._coded) and points:
            self.notes.add("point-passed-over")
        if self._said or self._coded:
            self._place()
        elif points and category.zero_radius_m is not None:
            self.notes.add("zero-radius")
            self._said = [(where, CapCircle(each.lat, each.lng, category.zero_radius_m)) for where, each in points]
            self._place()
        else:
            self.violations.append(Violation(problems.NO_AREA, f"{at}/area", _detail_of_no_area(areas)))

    def outside_jurisdiction(self, bounds: Bounds) -> list[OutsideShape]:
        """Return the shapes and zones of the message that are outside the source's jurisdiction (rule P22).

        The jurisdiction is the area where the source may publish.
        """
        said = [
            (where, list(each.corners) if isinstance(each, CapRing) else (each.lat, each.lng))
            for where, each in self._said
        ]
        coded = [(self._at, [(lat, lng) for lng, lat in piece.ring.T.tolist()]) for piece in self._coded]
        return [found for where, shape in [*coded, *said] if (found := outside_shape(where, shape, bounds))]

    def _place(self) -> None:
        """Fill `shapes` with the shapes in the message, and with the zones (known polygons) for its codes of areas."""
        coded = joined(self._coded, self._category.simplify_m, MAX_JOINED // self._blocks)
        shapes = [(self._at, self._small(piece)) for piece in coded]
        rings = self._split([(where, each) for where, each in self._said if isinstance(each, CapRing)])
        for where, each in self._said:
            if isinstance(each, CapCircle):
                shapes.append((where, (each.lat, each.lng, max(each.radius_m, self._category.min_radius_m))))
            elif each in rings:
                shapes.append((where, self._small(rings[each])))
        if self.violations:
            return
        if len(shapes) > MAX_SHAPES or not self._publish(shapes):
            self._unite(shapes)

    def _small(self, piece: Piece) -> Piece | Disc:
        """Return a circle of the category's smallest radius if it covers the polygon, otherwise the polygon."""
        return smallest_circle(piece.points(), piece.beyond_m, self._category.min_radius_m) or piece

    def _split(self, said: Sequence[tuple[str, CapRing]]) -> dict[CapRing, Piece]:
        """Return a dict from each ring to a polygon whose long edges are split.

        Invalid rings are left out, and their violations are added to `violations`.
        """
        rings = [tuple(np.array(each.corners).T[::-1]) for _, each in said]
        most = sum(len(lng) for lng, _ in rings) + MAX_PIECES // self._blocks
        try:
            split = split_rings(rings, most) if rings else []
        except ValueError:
            split = []
            for where, each in said:  # one by one, to find out which rings are invalid
                try:
                    split_rings([tuple(np.array(each.corners).T[::-1])], most)
                except ValueError as error:
                    self._broken(where, error)
            if not self.violations:
                detail = "must have fewer or shorter edges"
                self.violations.append(Violation(problems.AREA_TOO_COMPLEX, self._at, detail))
        return {
            each: Piece(np.array([lng, lat]), beyond_m)
            for (_, each), (lng, lat, beyond_m) in zip(said, split, strict=False)
        }

    def _publish(self, shapes: Sequence[tuple[str, Piece | Disc]]) -> bool:
        """Add the shapes to `self.shapes` as they are. Return False if they have to be united to be published.

        The result is True if they can be published as they are, and also if violations were found.

        Each ring is searched for crossings, by comparing its edges. There is a limit of comparisons for all alerts of a
        message (rule HD3). Rings for which no comparisons are left are treated as if they crossed themselves.
        """
        most = MAX_COMPARED // 4 // self._blocks
        for where, each in shapes:
            if not isinstance(each, Piece):
                self.shapes.append((where, each))
                continue
            try:
                lng, lat = each.ring
                outline = RequestedPolygon(lng, lat, each.beyond_m, most)
            except ValueError as error:
                self._broken(where, error)
            else:
                # The policy checks the size of the shapes in the message (P7); none is refused for being small.
                outline.radius_m = max(outline.radius_m, self._category.min_radius_m)
                self.shapes.append((where, outline))
                if outline.compared <= most:
                    most -= outline.compared
                    self.notes |= {"ring-crossed"} if outline.crosses and where != self._at else set()
        polygons = [each for _, each in self.shapes if isinstance(each, RequestedPolygon)]
        return bool(self.violations) or publish_polygons(polygons, self._category.simplify_m) is not None

    def _unite(self, shapes: Sequence[tuple[str, Piece | Disc]]) -> None:
        """Replace the given shapes by fewer and coarser ones that together cover them, in `self.shapes` (rule HD10)."""
        discs = [(where, each) for where, each in shapes if not isinstance(each, Piece)]
        pieces = [each for _, each in shapes if isinstance(each, Piece)]
        sizes_m = [each[2] for _, each in discs] + [each.radius_m() for each in pieces]
        widest_m = max(self._category.min_radius_m, *sizes_m)
        if len(shapes) > MAX_SHAPES:
            pieces, discs = [*pieces, *(around(each) for _, each in discs)], []
        found = few(pieces, MAX_SHAPES - len(discs), GRIDS[min(self._blocks.bit_length() - 1, 2)])
        if found is None:
            detail = "must be shapes that can be published as fewer and simpler ones"
            self.violations.append(Violation(problems.AREA_TOO_COMPLEX, self._at, detail))
            return
        self.notes.add("united")
        self.shapes = list(discs)
        for outline in found:
            outline.radius_m = widest_m  # as in `_publish`
            self.shapes.append((self._at, outline))

    def _broken(self, where: str, error: ValueError) -> None:
        kind = problems.AREA_TOO_COMPLEX if isinstance(error, TooComplex) else problems.INVALID_VALUE
        self.violations.append(Violation(kind, where, f"a polygon {error}"))


def _zones_of(areas: list[tuple[str, Area]], zones: Zones) -> tuple[list[Piece], int]:
    """Return the known polygons for those areas that have codes but no shape.

    Also return the number of areas without a shape that these polygons do not fully cover. A point is not a shape, but
    an area with a point is not counted.
    """
    found: list[Piece] = []
    left_out = 0
    for _, area in areas:
        if not area.rings and not any(circle.radius_m for circle in area.circles):
            pieces, whole = zones.place((code.name, code.value) for code in area.codes)
            found += pieces
            left_out += not whole and not area.circles
    return found, left_out


def _distinct_shapes(areas: list[tuple[str, Area]]) -> list[tuple[str, CapCircle | CapRing]]:
    """Return the shapes of these areas without duplicates, each with the pointer to the first area that has it."""
    found: dict[CapCircle | CapRing, str] = {}
    for where, area in areas:
        for shape in area.shapes:
            found.setdefault(shape, where)
    return [(where, shape) for shape, where in found.items()]


def _detail_of_no_area(areas: list[tuple[str, Area]]) -> str:
    """Return the error text for an alert whose areas have neither a shape nor a known code.

    The text names the lists to which the codes belong, but never repeats a code (rule CP24).
    """
    names = sorted({code.name for _, area in areas for code in area.codes if _NAMEABLE.fullmatch(code.name)})
    if not any(area.codes for _, area in areas):
        return "must have a polygon, or a circle with a radius"
    named = f" ({', '.join(names[:MAX_NAMED])})" if names else ""
    return f"must have a polygon, or a circle with a radius: codes{named} can't be placed"
