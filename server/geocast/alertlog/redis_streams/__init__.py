"""A log in a Redis stream, for any number of machines.

How the rules of the port are kept (`lua/prelude.lua` lists the keys in Redis):

LogA1,
LogA2   One script checks an entry and stores it, and Redis runs one script at a time. Each append has a random token.
        Example: the reply to an append is lost. The appender sends the entry again with the same token. The script
        finds an entry with this token under the number and answers `ours`, so `append` returns True.
LogA3   After the script, on the same connection, WAITAOF waits until the entry is synced on this server and on the
        wanted number of replicas (WAIT, without an append-only file). Both numbers in its answer are checked. All
        appends that wait for a connection share one script and one WAITAOF. An acknowledged entry can still be lost if
        the primary fails and a replica without the entry takes over; see "Failover" below. With enough replicas wanted
        this cannot happen.
LogA4   This rule is not kept strictly, since a stream shows an entry as soon as it is added. With `appendfsync always`
        and no replicas wanted, an entry that is visible is synced. Otherwise followers see it up to a second earlier,
        and if Redis fails in that second, they have seen an entry that is then lost. `history` and `live`, by which
        requests are answered, wait until all entries in their answer are durable.
LogF1   A position is epoch << 40 | seq. Positions always rise. In a new epoch all entries are given again, at positions
        of that epoch.
LogF2   XREAD BLOCK waits for a second, on a connection of its own and with a deadline of its own. An empty batch is
        given only if the stream that is read is the one that is written: the heartbeats that Redis has accepted have to
        come out of it.
        Example: a network error leaves the follower's connection to the old primary open, while this process already
        writes to the new one. Nothing comes, as in a quiet log. But the heartbeats do not come either, so `follow`
        raises LogUnavailable instead of giving empty batches.
LogF3   Every wait for Redis has a time limit.
LogL2   The sorted set `ends` has the order of LogL1. One script finds the beginning of a page by bisection and reads on
        from there.
LogR2   As in `sqlite.py`: each entry has a CRC-32. An entry that can't be read is skipped, logged and counted.

Failover. Redis replicates asynchronously, and without `appendfsync always` a restart loses up to a second of entries.
The log then is *rewound*: its history ends earlier than before, and may continue differently. Four rules repair this:

Rule 1  Each entry has a sequence number and an epoch. A follower detects a rewound log by a gap in the numbers, by
        another epoch, or, after it has connected to another server, by the absence of the last entry that it read. It
        then makes the log begin a new epoch and reads the stream from the start. Readers drop entries that they have
        already, by id and revision.
        Example: a follower has read the entries 1 to 10 when the primary fails. The new primary has 1 to 8, and stores
        another entry as 9. The follower connects to it and does not find its entry 10. So it has a new epoch begun and
        reads all entries again.
        A stream that begins again may have lower ids than before, if the clock of its host was set back. A reader that
        waits after a higher id would get nothing. So at the end of the stream the follower also compares its epoch with
        the log's.
Rule 2  Each process keeps the bytes of the entries of alerts that have not ended in memory, including entries of other
        kinds (LogG5). In a new epoch, and when another server answers, it puts back the entries that the log lacks.
        Cancelled alerts are put back first, and the others a second later. The entries of one alert are put back in one
        piece (`m`). Gaps in their numbers are allowed, because no process may have the old entries any more.
        Example: the log has lost an alert's revision 1 and its cancel. Node A knows revision 1 alone, and node B knows
        both. If A were first, every follower would send an alert that is over. But B puts back both in one script,
        within the second in which A waits.
Rule 3  If the log has another entry under a number by now (a split brain), the log's entry stays, and a conflict is
        counted. But a cancel was already accepted, so it is appended again under the next number. So are the end of a
        call, and a `claim` whose seat was not given back. Each is appended once: every node first looks for it in the
        log, by its seal (LogC5).
        Example: node A cancels alert a as entry 2, and is cut off with the old primary. At the new primary node B
        appends revision 2. When A is connected again, the log has B's revision 2, and A appends its cancel as entry 3.
Rule 4  A process that has read the end of a call drops the call's `call` entries from its memory, because they contain
        a place. And the script that puts entries back refuses a `call` entry after an end (LogC4).
        Example: the place of a call was purged ten minutes after its end. A node that was cut off still has it. Without
        the check in the script it would write the place to the log again.

The modules. Each owns its state, and ARCHITECTURE.md draws which one imports which:

    log         the port, made from the others      heartbeat        whether Redis can keep the log, every second
    follower    reads the stream                    repair           Rules 2 to 4; the entries kept in memory
    appender    the queue of appends                delivery_counts  how often each revision was delivered
    writer      scripts whose writes are durable    history          Rule 1: state and decisions, without I/O
    stored      entries and ids in the stream       connection       the only module that imports redis
    tail        a reader for other programs         target, scripts  the addresses of Redis; the scripts in lua/
"""

from .log import RedisStreamsLog

__all__ = ["RedisStreamsLog"]
