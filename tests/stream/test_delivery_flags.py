"""Delivery flags: the three forms compared with a dict, and the memory that they take."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from geocast.stream.delivery_flags import MANY, DeliveryFlags, Departures

CAPACITY = 64  # rows: up to 8 are few
ROW = st.integers(0, CAPACITY - 1)
ROWS = st.lists(ROW, max_size=12, unique=True)
BYTE = st.integers(0, 255)


def rows(numbers):
    """Return the numbers of rows (places of sessions in the hub's tables) as the array that the hub passes."""
    return np.array(numbers, np.int32)


class Telling(RuleBasedStateMachine):
    """Random deliveries of two alerts, each compared with a dict from which rows of ended sessions are removed."""

    @initialize()
    def begin(self):
        self.departures = Departures(CAPACITY)
        self.alerts = [(DeliveryFlags(self.departures), {}) for _ in range(2)]

    @rule(which=st.integers(0, 1), row=ROW, flags=BYTE)
    def put(self, which, row, flags):
        told, expected = self.alerts[which]
        told.put(row, flags)
        expected[row] = flags

    @rule(which=st.integers(0, 1), some=ROWS, flags=BYTE, add=st.booleans())
    def change_all(self, which, some, flags, add):
        told, expected = self.alerts[which]
        (told.add_to_all if add else told.take_from_all)(rows(some), flags)
        for row in some:
            expected[row] = expected.get(row, 0) | flags if add else expected.get(row, 0) & ~flags

    @rule(which=st.integers(0, 1), some=ROWS)
    def expect(self, which, some):
        self.alerts[which][0].expect(rows(some))

    @rule(which=st.integers(0, 1), keep=BYTE, steps=st.integers(0, 8))
    def shift(self, which, keep, steps):
        told, expected = self.alerts[which]
        told.shift(keep, 0xFC, steps)
        for row, flags in list(expected.items()):
            if isinstance(row, int):
                expected[row] = (flags & 0xFC) << steps & 0xFF | flags & keep

    @rule(which=st.integers(0, 1), row=ROW, held=st.integers(1, 9))
    def ahead(self, which, row, held):
        told, expected = self.alerts[which]
        told.put(row, expected.setdefault(row, 1))
        told.ahead[row] = held
        expected[row, "ahead"] = held

    @rule(some=ROWS)
    def leave(self, some):
        self.departures.note(rows(some))
        for _, expected in self.alerts:
            for row in some:
                expected.pop(row, None)
                expected.pop((row, "ahead"), None)

    @rule(which=st.integers(0, 1), flags=st.integers(1, 255), more=BYTE)
    def having(self, which, flags, more):
        told, expected = self.alerts[which]
        wanted = sorted(r for r, has in expected.items() if isinstance(r, int) and has & (flags | more) == flags)
        assert told.having(flags, flags | more).tolist() == wanted

    @rule(which=st.integers(0, 1), some=ROWS)
    def asked_for_some(self, which, some):
        told, expected = self.alerts[which]
        assert told.of_all(rows(some)).tolist() == [expected.get(row, 0) for row in some]

    @invariant()
    def each_row_has_its_flags(self):
        """Check one of the two alerts after every step.

        The other is asked only by the rules, so departures pile up there.
        """
        if not hasattr(self, "alerts"):
            return
        told, expected = self.alerts[0]
        assert [told.of(row) for row in range(CAPACITY)] == [expected.get(row, 0) for row in range(CAPACITY)]
        assert told.ahead == {key[0]: held for key, held in expected.items() if not isinstance(key, int)}


TestTelling = pytest.mark.slow(Telling.TestCase)
TestTelling.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None
)


def test_delivery_flags_take_at_most_eight_bytes_for_each_session():
    """The limit holds with few sessions and with all. Without any session the flags take no memory."""
    for count in (0, 1, 100, 2_500, 2_501, 20_000):
        told = DeliveryFlags(Departures(20_000))
        told.add_to_all(rows(range(count)), 1)
        assert len(told.having(1, 1)) == count
        few = len(told._rows) * told._rows.itemsize + len(told._flags)
        assert (few if told._column is None else told._column.nbytes) <= MANY * count


@pytest.mark.parametrize("count", [3, 2_000, 20_000])
def test_flags_of_disconnected_sessions_do_not_count_for_their_successors(count):
    """The next session in the same row of the table is another client (Rule 1)."""
    departures = Departures(20_000)
    told = DeliveryFlags(departures)
    told.add_to_all(rows(range(count)), 7)
    departures.note(rows([0, 2]))
    told.put(2, 1)
    assert (told.of(0), told.of(1), told.of(2)) == (0, 7, 1)
    departures.note(rows([1]))
    assert told.of_all(rows([1, 2])).tolist() == [0, 1]


def test_arrays_returned_by_delivery_flags_are_copies():
    """A view would keep `array` and `bytearray` from growing."""
    told = DeliveryFlags(Departures(20_000))
    told.put(5, 3)
    found, flags = told.having(1, 1), told.of_all(rows([5]))
    told.put(4, 3)
    told.put(6, 3)
    assert (found.tolist(), flags.tolist()) == ([5], [3])
