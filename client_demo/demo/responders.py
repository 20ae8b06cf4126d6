"""The responders among the simulated phones: their qualifications, their places and their answers to calls. No I/O.

They are scattered around the places of cardiac arrests. Some of them must not be called: those who are off duty, who
have no qualification, or whose token is valid for longer than is allowed (docs/reference/call-rules.md, RQ2).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client_demo.python.geo import Place, offset

from .population import Point, Simulated

RESPONDER = "a responder"  # the `kind` of these subscribers
SEED = 112
NEAR_M = 700.0  # standard deviation of responders' distance from an arrest
ROUND_EACH = 24  # the number of responders around each arrest, for at most MOST_ARRESTS arrests
MOST_ARRESTS = 4
SAYS = {"accept": 60, "decline": 20, "": 20}  # answer -> percentage
ANSWERS_S = (0.3, 1.8)
THERE_S = 0.4  # from the task to the arrival; short, as the demo is short
DAY_S = 86_400
LIFE_S = 23 * 3600
# By sort of responder: percentage, qualifications in the token, whether on duty, and lifetime of the token in s.
SORTS: dict[str, tuple[int, tuple[str, ...], bool, int]] = {
    "a medic": (50, ("medic",), True, LIFE_S),
    "a first aider": (25, ("cpr",), True, LIFE_S),
    "a medic off duty": (10, ("medic",), False, LIFE_S),
    "without a qualification": (10, (), True, LIFE_S),
    "with a token that lasts too long": (5, ("medic",), True, 7 * DAY_S),
}

TokenOf = Callable[[str, Sequence[str], int], str]  # (sub, quals, life in s) -> token


@dataclass(frozen=True, slots=True)
class Responder:
    """A simulated responder: its subscriber, and in `counts` those of its qualifications for which it may be called.

    `sort` is a key of SORTS, and `says` is the answer to calls.
    """

    simulated: Simulated
    sort: str
    counts: frozenset[str]
    says: str

    @property
    def here(self) -> Place | None:
        """The place where the responder is on duty, or None when off duty."""
        (place,) = self.simulated.steps[0]
        return place if place.here else None


def responders(arrests: Sequence[Point], token_of: TokenOf, seed: int = SEED) -> list[Responder]:
    """Return the responders around the places of cardiac arrests.

    `token_of` returns a token for a responder, from its `sub`, its qualifications and the token's life in seconds.
    """
    dice = random.Random(seed)
    found: list[Responder] = []
    for where in arrests[:MOST_ARRESTS]:
        for _ in range(ROUND_EACH):
            found.append(_one(len(found), where, token_of, dice))
    return found


def _one(number: int, where: Point, token_of: TokenOf, dice: random.Random) -> Responder:
    (sort,) = dice.choices(list(SORTS), [share for share, *_ in SORTS.values()])
    _, quals, is_on_duty, life_s = SORTS[sort]
    (says,) = dice.choices(list(SAYS), list(SAYS.values()))
    accuracy_m = dice.choice((0.0, 0.0, 15.0, 60.0))
    lat, lng = offset(*where, dice.gauss(0, NEAR_M), dice.gauss(0, NEAR_M))
    sub = f"r-{number:04x}"
    answer = {"says": says, "after_s": round(dice.uniform(*ANSWERS_S), 2), "there_s": THERE_S}
    simulated = Simulated(
        RESPONDER,
        "json" if number % 2 else "msgpack",
        [[Place.at(lat, lng, accuracy_m, here=is_on_duty)]],
        sub=sub,
        token=token_of(sub, quals, life_s),
        answer=answer,
    )
    return Responder(simulated, sort, frozenset(quals) if life_s <= DAY_S else frozenset(), says)
