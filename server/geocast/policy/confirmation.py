"""Large areas and revealing texts, which a person must confirm before they are published (rules P23, P24 and A21).

Both are often mistakes: a kilometre typed for a metre, or a line pasted from a dispatcher's record. The violations name
the kind and the position of what was found, and never repeat a word of a text (rule H9).
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from ..geometry.sphere import circle_area_m2
from ..geometry.spherical_polygon import SphericalPolygon
from ..model import problems
from ..model.alert import Circle, Confirm, Polygon, Shape
from ..model.problems import Violation, ViolationMembers, digits
from .pii import KINDS, NEVER, Finding, PiiDetector

AREA = "area"  # the `kind` of a violation of P23; a violation of P24 has one of the kinds in `pii`

Texts = Sequence[tuple[str, str | None]]  # each text with its JSON Pointer; None if the text is unusable


def covered_km2(area: Iterable[Shape]) -> float:
    """Return the sum of the areas of all shapes in km², rounded up to one decimal (P23).

    An area in which shapes overlap is counted once for each of them.
    """
    return math.ceil(sum(map(_area_m2, area)) / 100_000) / 10


def _area_m2(shape: Shape) -> float:
    match shape:
        case Circle():
            return circle_area_m2(shape.radius_m)
        case Polygon():
            return SphericalPolygon(shape.ring, shape.buffer_m).area_m2()
    return 0.0


def unconfirmed_area(area_km2: float, hold_km2: float | None, confirm: Confirm) -> Iterator[Violation]:
    """Yield a violation if a large area is not confirmed (P23), or if an area is confirmed that is not large (A21).

    An area is large if it is larger than `hold_km2`. If `hold_km2` is None, no area is large. `confirm` has what a
    person has confirmed about the request.
    """
    confirmed_km2 = confirm.area_km2
    if hold_km2 is None or area_km2 <= hold_km2:
        if confirmed_km2 is not None:
            detail = "must be left out: this area needs no confirmation"
            yield Violation(problems.INVALID_VALUE, "/confirm/area_km2", detail)
    elif confirmed_km2 is None or area_km2 > confirmed_km2:
        detail = f"covers {area_km2:.1f} km2; more than {digits(hold_km2)} has to be confirmed"
        if confirmed_km2 is not None:
            detail += ", but only a smaller area is"
        members: ViolationMembers = {"kind": AREA, "area_km2": area_km2, "hold_area_km2": hold_km2}
        yield Violation(problems.AREA_UNCONFIRMED, "/area", detail, members)


def unconfirmed_texts(pii: PiiDetector | None, texts: Texts, confirm: Confirm) -> Iterator[Violation]:
    """Yield a violation for each part of a text that looks like personal data and is not confirmed (P24).

    Also yield one for each kind of data that was confirmed although no text has a part of this kind (A21). `pii` finds
    the parts; if it is None, none are found. `confirm` has what a person has confirmed about the request.
    """
    found = [(at, each) for at, text in texts if pii and text is not None for each in pii.find(text)]
    if all(text is not None for _, text in texts):
        kinds = {each.kind for _, each in found}
        for n, kind in enumerate(confirm.text):
            if kind not in kinds:
                detail = "must be left out: no text reads like this"
                yield Violation(problems.INVALID_VALUE, f"/confirm/text/{n}", detail)
    for at, each in found:
        if each.kind in NEVER or each.kind not in confirm.text:
            yield _unconfirmed(at, each)


def _unconfirmed(pointer: str, found: Finding) -> Violation:
    where = f"characters {found.start + 1} to {found.end}"
    confirmable = found.kind not in NEVER
    detail = f"reads like {KINDS[found.kind]} ({where})" + ("" if confirmable else ", which can't be confirmed")
    place = ViolationMembers(kind=found.kind, start=found.start, end=found.end, confirmable=confirmable)
    return Violation(problems.TEXT_UNCONFIRMED, pointer, detail, place)
