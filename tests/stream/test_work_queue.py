"""The queue of connections that wait for their turns."""

from geocast.stream.work_queue import WorkQueue


class Waiter:
    """A connection that notes its turns; it may fail."""

    def __init__(self, turns, fails=False):
        self.turns, self.fails, self.is_ended = turns, fails, False

    def take_turn(self):
        """Note the turn."""
        self.turns.append(self)
        if self.fails:
            raise ZeroDivisionError

    def abort(self):
        """Note the end."""
        self.is_ended = True


def test_connection_that_fails_is_ended_and_keeps_no_other_from_its_turn():
    """Neither those that wait with it, nor any that comes later."""
    due, turns = [], []
    queue = WorkQueue(lambda _seconds, call: due.append(call), work_s=60, rest_times=0)
    first, second, third = Waiter(turns, fails=True), Waiter(turns), Waiter(turns)
    queue.wait(first)
    queue.wait(second)
    due.pop()()
    queue.wait(third)
    due.pop()()
    assert turns == [first, second, third]
    assert [each.is_ended for each in turns] == [True, False, False]
