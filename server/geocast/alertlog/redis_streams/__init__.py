"""A log in a Redis stream: any number of machines.

How the rules of the port are kept (what the scripts in `lua/` do, and with which keys, is told in `prelude.lua`):

LogA1,
LogA2   One script judges an entry and stores it: Redis runs one at a time. An append has a token, so that when a reply
        is lost it may ask again, and learns whether what is stored is its own.
LogA3   Behind the script, on the same connection, WAITAOF (WAIT without an append-only file) waits until the entry is
        synced here and on as many replicas as was asked, and the numbers are looked at. All appends that wait for a
        connection share one script and one WAITAOF. What was acknowledged can be lost all the same when a primary
        fails and a replica takes over that had not got it (never, with enough replicas asked for); see "Failover".
LogA4   Does not hold strictly: a stream can't be kept back. With `appendfsync always` and no replicas asked for nobody
        sees an entry that is not synced. Else followers see it up to a second before, and it may be that it was seen
        and then lost, if Redis fails in that second. `history` and `live`, by which requests are answered, wait until
        all that they tell is durable.
LogF1   Positions are epoch << 40 | seq. They rise for ever; in a new epoch everything is given again, at positions of
        that epoch.
LogF2   XREAD BLOCK for a second, on a connection of its own with a deadline of its own. There is an empty batch only
        while the stream that is read is the one that is written: heartbeats which Redis accepted must come out of it.
LogF3   Every wait on Redis has an end.
LogL2   The sorted set `ends` has the order of LogL1. One script finds where a page begins by halving, and reads on.
LogR2   As in `sqlite.py`: a CRC-32 for each entry, and what can't be read is skipped, named and counted.

Failover. Redis replicates asynchronously, and a restart without `appendfsync always` takes up to a second back. So:

Rule 1  Each entry has a sequence number and an epoch. A follower that finds a gap or another epoch, or whose last entry
        is gone when it reconnects to another server, knows that history was rewound: it has the log begin a new epoch,
        and reads it from the start. Those who follow drop what they have by (id, revision). A stream that begins anew
        may have lower ids than before (the clock of its host was set), and then nothing of it comes to who waits
        behind a higher one: so at the end of what comes the epoch is compared with the log's.
Rule 2  Each process keeps, in memory, the bytes of the entries of alerts that have not ended, those of other kinds too
        (LogG5). In a new epoch, and when another server answers, it puts back what the log lacks: alerts that are
        cancelled first, the others a second later, so that no cancelled alert comes back to life. Entries of one alert
        come in one piece (`m`). Their numbers may leave gaps: nobody may know those that ended long ago.
Rule 3  If the log has another entry under that number by now (a split brain), the log's stands, and that is counted.
        But a cancel that was accepted is appended again, under the next number; so is the end of a call, and a claim
        that was not given back: once, for each node looks first whether the log has it, by its seal (LogC5).
Rule 4  Who knows the end of a call lets go of its `call` entries, which hold a place; and the script that puts back
        takes none behind an end (LogC4).

The parts. Each owns its state, and they import one another one way, as ARCHITECTURE.md draws it:

    log         the port                            heartbeat        whether Redis can keep the log
    follower    reads the stream                    repair           Rule 2 to Rule 4; the entries that are known
    appender    the queue of appends                delivery_counts  how many were sent each revision
    writer      scripts whose writes are durable    history          Rule 1: state and decisions, without I/O
    stored      entries and ids in the stream       connection       the only file that imports redis
    tail        the stream, only read, for others   target, scripts  where Redis is; the scripts in lua/
"""

from .log import RedisStreamsLog

__all__ = ["RedisStreamsLog"]
