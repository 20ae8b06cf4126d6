"""The history of a log in Redis: each row of the table in `redis_streams/history.py`, tested without a Redis."""

import pytest

from geocast.alertlog.redis_streams.history import History, ReadPosition, Rewound, floor_after
from geocast.alertlog.redis_streams.stored import ZERO, position_of

A, B = ("process a", "history a"), ("process b", "history a")
EPOCH = 1_000


def a_history(epoch=EPOCH, seq=5, server=A, tops=((100, 0), (200, 0))):
    """Return a history after two heartbeats of one server."""
    history = History()
    history.told(epoch, seq)
    for top in tops:
        history.told_top(top)
    history.accepted_by(server, epoch)
    return history


def a_reading(history, seq=5, place=(200, 0), server=A):
    """Return the position of a follower that has read everything up to a heartbeat."""
    reading = ReadPosition(position_of(history.epoch, seq), 0, server, history.server)
    reading.begin(history.epoch, seq, history.top)
    reading.place, reading.last = place, (199, 0)
    return reading


# ---- what heartbeats report --------------------------------------------------------------------------------------


def test_first_heartbeat_sets_history_and_restores_nothing():
    """No loss is known yet, so there is nothing to restore (row 9)."""
    history = History()
    assert not history.told(EPOCH, 7)
    assert (history.epoch, history.seq, history.rewinds) == (EPOCH, 7, 0)
    assert not history.accepted_by(A, EPOCH)


@pytest.mark.parametrize("seq", [5, 6])
def test_heartbeat_of_same_history_only_updates_last_number(seq):
    """Only the number of the last entry rises (row 1)."""
    history = a_history()
    assert not history.told(EPOCH, seq)
    assert not history.accepted_by(A, EPOCH)
    assert (history.epoch, history.seq, history.rewinds) == (EPOCH, seq, 0)


def test_older_heartbeat_does_not_lower_last_number():
    """A heartbeat that arrives late, even one of an earlier epoch, changes nothing (row 1)."""
    history = a_history(seq=9)
    assert not history.told(EPOCH, 4)
    assert not history.told(EPOCH - 1, 12)
    assert (history.epoch, history.seq, history.rewinds) == (EPOCH, 9, 0)


def test_later_epoch_is_adopted_and_all_entries_are_restored_once():
    """A later epoch is adopted even if it has fewer entries (row 2)."""
    history = a_history()
    assert history.told(EPOCH + 1, 2)
    assert (history.epoch, history.seq, history.rewinds) == (EPOCH + 1, 2, 1)
    assert history.accepted_by(A, EPOCH + 1)
    assert not history.accepted_by(A, EPOCH + 1)


def test_each_later_epoch_after_first_one_counts_as_rewind():
    """Even the lowest number of an epoch is an epoch that was lost (row 2)."""
    history = History()
    assert [history.told(epoch, 0) for epoch in (1, 2, 3)] == [False, True, True]
    assert history.rewinds == 2


def test_heartbeat_from_another_server_restores_all_entries_once():
    """The other server may lack entries that the previous server has acknowledged (row 4)."""
    history = a_history()
    assert history.accepted_by(B, EPOCH)
    assert not history.accepted_by(B, EPOCH)
    assert history.rewinds == 0


@pytest.mark.parametrize(
    ("epoch", "seq", "floor"),
    [(EPOCH, 5, None), (EPOCH, 6, None), (EPOCH + 1, 0, None), (EPOCH, 4, EPOCH), (EPOCH - 1, 99, EPOCH)],
)
def test_heartbeat_with_lower_number_begins_new_epoch(epoch, seq, floor):
    """The new epoch is above the known one (row 3); in rows 1 and 2 no epoch begins."""
    assert floor_after(a_history().mark, epoch, seq) == floor


# ---- how a follower begins ---------------------------------------------------------------------------------------


def test_follower_continues_at_position_of_previous_follower():
    """The new follower has the previous one's place in the stream, and notices a gap after it (row 1)."""
    history = a_history(seq=8)
    before = a_reading(history, seq=5)
    assert before.fits(EPOCH, 8)
    assert before.fits(EPOCH, 5)
    reading = ReadPosition(before.position, 0, A, A)
    reading.go_on_from(before)
    assert (reading.epoch, reading.seq, reading.place, reading.top) == (EPOCH, 5, (200, 0), (200, 0))
    with pytest.raises(Rewound):
        reading.take((201, 0), EPOCH, 7, is_beat=False)


def test_follower_on_another_server_continues_after_last_entry_read():
    """The other server may lack the last heartbeat (row 6)."""
    before = a_reading(a_history())
    reading = ReadPosition(before.position, 0, B, B)
    reading.go_on_from(before)
    assert reading.place == reading.top == before.last


@pytest.mark.parametrize(("epoch", "seq"), [(EPOCH, 4), (EPOCH - 1, 9), (EPOCH + 1, 9)])
def test_reading_position_is_rejected_for_shorter_log_or_other_epoch(epoch, seq):
    """Such a log can't have all entries that the follower has read (rows 5 and 6)."""
    assert not a_reading(a_history()).fits(epoch, seq)


@pytest.mark.parametrize(
    ("epoch", "known", "floor"),
    [
        (EPOCH, EPOCH, EPOCH),  # the log is still in our epoch: no other process has noticed
        (EPOCH - 9, EPOCH, EPOCH),  # its clock was set back, and it was flushed
        (EPOCH + 1, EPOCH + 1, None),  # another process has begun an epoch
        (
            EPOCH + 1,
            EPOCH + 9,
            EPOCH + 9,
        ),  # another process has begun an epoch, but another server has reported a later one
    ],
)
def test_new_epoch_is_greater_than_all_known_ones_and_begins_only_once(epoch, known, floor):
    """Positions always rise (rows 5, 6 and 8, LogF1)."""
    assert a_reading(a_history()).floor(epoch, known) == floor


@pytest.mark.parametrize(
    ("after", "ended_before_ms", "may"),
    [(0, 0, True), (0, 500, True), (1, 0, False)],
)
def test_reader_that_wants_other_entries_does_not_continue_at_old_position(after, ended_before_ms, may):
    """The reader asks for another position, or for entries that were skipped (`AlertLog.follow`)."""
    before = a_reading(a_history())
    assert before.may_be_continued(before.position + after, ended_before_ms) is may
    before.ended_before_ms = 1
    assert before.may_be_continued(before.position, 0) is False


# ---- what a follower reads ---------------------------------------------------------------------------------------


def test_entries_with_consecutive_numbers_are_accepted():
    """Heartbeats between the entries repeat the last number (row 1)."""
    reading = a_reading(a_history())
    assert reading.take((201, 0), EPOCH, 6, is_beat=False) == position_of(EPOCH, 6)
    assert reading.take((202, 0), EPOCH, 6, is_beat=True) == 0
    assert reading.take((203, 0), EPOCH, 7, is_beat=False) == position_of(EPOCH, 7)
    assert (reading.place, reading.last, reading.seq) == ((203, 0), (203, 0), 7)


@pytest.mark.parametrize(
    ("epoch", "seq", "is_beat"),
    [(EPOCH, 7, False), (EPOCH, 5, False), (EPOCH, 6, True), (EPOCH + 1, 6, False), (EPOCH - 1, 5, True)],
    ids=["gap", "again", "gap before a heartbeat", "later epoch", "earlier epoch"],
)
def test_gap_in_numbers_or_other_epoch_raises_rewound(epoch, seq, is_beat):
    """A gap and another epoch both show that entries were lost (row 5)."""
    with pytest.raises(Rewound):
        a_reading(a_history()).take((201, 0), epoch, seq, is_beat=is_beat)


def test_gaps_in_numbers_are_allowed_in_entries_stored_before_start():
    """Purged entries leave gaps, and restored entries have new epochs (row 9)."""
    history = a_history(seq=9)
    reading = ReadPosition(0, 0, A, A)
    reading.begin(EPOCH, 9, (200, 0))
    for seq in (2, 5, 9):
        assert reading.take((190 + seq, 0), EPOCH - 1, seq, is_beat=False) == position_of(EPOCH, seq)
    assert reading.take((201, 0), EPOCH, 10, is_beat=False)
    assert not reading.is_deaf(history)


def test_ended_entries_are_skipped_only_if_stored_before_start():
    """Later entries are all returned, since the clock behind `ended_before_ms` may be wrong (`AlertLog.follow`)."""
    reading = ReadPosition(0, 1000, A, A)
    reading.begin(EPOCH, 2, (200, 0))
    for place, ends_at, wanted in [
        ((199, 0), 999, False),
        ((200, 0), 999, False),
        ((200, 0), 1000, True),
        ((201, 0), 999, True),
    ]:
        seq = 3 if place > reading.top else 2
        assert reading.wants(reading.take(place, EPOCH, seq, is_beat=False), b"a", ends_at) is wanted


def test_ended_entry_is_not_skipped_after_one_of_its_alert_that_has_not_ended():
    """Else the earlier one would count as the current one (`AlertLog.follow`)."""
    reading = ReadPosition(0, 1000, A, A)
    reading.begin(EPOCH, 4, (200, 0))
    for ms, alert_id, ends_at, wanted in [
        (196, b"a", 999, False),
        (197, b"a", 1000, True),
        (198, b"a", 999, True),
        (199, b"b", 999, False),
    ]:
        assert reading.wants(reading.take((ms, 0), EPOCH, 4, is_beat=False), alert_id, ends_at) is wanted


def test_entries_up_to_start_position_are_not_returned_again():
    """Each entry is given once (LogF1)."""
    reading = ReadPosition(position_of(EPOCH, 2), 0, A, A)
    reading.begin(EPOCH, 3, (200, 0))
    assert not reading.wants(reading.take((199, 0), EPOCH, 2, is_beat=False), b"a", 0)
    assert reading.wants(reading.take((200, 0), EPOCH, 3, is_beat=False), b"a", 0)


def test_foreign_item_in_stream_is_skipped():
    """The number of the next entry still follows that of the entry before the item (LogR2)."""
    reading = a_reading(a_history())
    reading.pass_over((201, 0))
    assert reading.place == (201, 0)
    assert reading.take((202, 0), EPOCH, 6, is_beat=False)


def test_reading_reaches_top_with_item_at_end_of_stream():
    """An item before the end that the stream had when reading began is not enough (row 5)."""
    reading = a_reading(a_history())
    for place, reached in [((199, 9), False), ((200, 0), True), ((200, 1), True)]:
        reading.place = place
        assert reading.has_reached_top() is reached


# ---- followers at the end of the stream --------------------------------------------------------------------------


def test_reader_missing_only_last_heartbeat_does_not_count_as_disconnected():
    """The last heartbeat may still be on its way (row 7)."""
    history = a_history()
    reading = a_reading(history, place=(150, 0))
    reading.top = ZERO
    assert not reading.is_deaf(history)
    reading.place = (99, 0)
    assert reading.is_deaf(history)


def test_reader_that_began_before_first_heartbeat_does_not_count_as_disconnected():
    """No end of the stream was reported yet (row 7)."""
    history = History()
    assert not ReadPosition(0, 0, A).is_deaf(history)
    history.accepted_by(B, EPOCH)
    assert ReadPosition(0, 0, A, A).is_deaf(history)


def test_reader_that_stops_before_reported_end_of_stream_counts_as_disconnected():
    """The reader must be reading another stream than the one whose end was reported (row 7)."""
    history = a_history()
    reading = ReadPosition(0, 0, A, A)
    reading.begin(EPOCH, 5, (200, 0))
    assert reading.is_deaf(history)


def test_reader_of_server_without_heartbeats_counts_as_disconnected():
    """The reader is connected as long as heartbeats go to the server to which nodes wrote when it began (row 4)."""
    history = a_history()
    for server, deaf in [(A, False), (B, True)]:
        reading = a_reading(history, server=server)
        reading.others = server
        assert reading.is_deaf(history) is deaf
    reading = a_reading(history)
    history.accepted_by(B, EPOCH)
    assert reading.is_deaf(history)


def test_stream_ids_that_go_back_are_noticed_only_by_a_new_epoch():
    """A clock was corrected, and the stream began again (rows 7 and 8)."""
    history = a_history()
    reading = a_reading(history, place=(9_000, 0))
    history.told(EPOCH + 1, 0)
    history.told_top((50, 0))
    assert history.top_before == ZERO
    assert not reading.is_deaf(history)
    assert reading.is_superseded(history)
    assert not a_reading(history).is_superseded(history)
