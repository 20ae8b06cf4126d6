"""A log in a Redis stream, for any number of machines.

A few words that this package uses: an *epoch* is a number that rises when the log has lost entries. A *follower* reads
the stream and passes new entries on. A *heartbeat* is an item that each process writes to the stream once a second. To
*put back* entries is to restore lost entries from a process's memory.

This is how the package keeps the rules of `alertlog` (`lua/prelude.lua` lists the keys in Redis):

LogA1,
LogA2   One script both checks an entry and stores it, and Redis runs one script at a time. Each append has a random
        token.
        Example: the reply to an append is lost. The process sends the entry again with the same token, and the number
        of the attempt behind it. The script finds that the stored entry with this number has this token, and answers
        `ours`. So `append` returns True.
LogA3   After the script, the command WAITAOF on the same connection waits until the entry is synced to disk on this
        server and on the configured number of replicas. (If there is no append-only file, WAIT is used instead.) Both
        numbers in its answer are checked. All appends that wait for a connection share one script and one WAITAOF. An
        acknowledged entry can still be lost if the primary fails and a replica without the entry takes over; see
        "Failover" below. If enough replicas are configured, this cannot happen.
LogA4   This rule is not kept strictly, because a stream shows an entry as soon as it is added. With `appendfsync
        always` and no replicas configured, every visible entry is synced. Otherwise followers see an entry up to a
        second before it is synced; if Redis fails in that second, they have seen an entry that is then lost. `history`
        and `live`, whose results go into answers to requests, wait until all entries in their results are durable.
LogF1   A position is epoch << 40 | seq, where seq is the entry's sequence number in the log. So positions always rise.
        When an epoch begins, followers yield all entries again, at positions of the new epoch.
LogF2   XREAD BLOCK waits for a second, on a connection and with a deadline of its own. A follower yields an empty batch
        only if it reads the stream to which this process writes: heartbeats that Redis has accepted must appear in the
        stream that the follower reads.
        Example: a network error leaves the follower's connection to the old primary open, while this process already
        writes to the new primary. The follower receives nothing, as in a quiet log. But it receives no heartbeats
        either, so `follow` raises LogUnavailable instead of yielding empty batches.
        With `--log-follow`, followers may read a replica. `reading` says when they may, and when they leave it.
LogF3   Every wait for Redis has a time limit.
LogL2   The sorted set `ends` has the order of LogL1. One script finds the beginning of a page by bisection, and reads
        the page from there.
LogR2   Each entry has a CRC-32. An entry that can't be read is skipped, logged and counted.

Failover. Redis replicates asynchronously, and without `appendfsync always` a restart loses up to a second of entries.
The log is then *rewound*: the sequence of entries ends earlier than before, and other entries may follow. Four rules
repair this:

Rule 1  Each entry has a sequence number and an epoch. A follower knows that the log was rewound if it finds a gap in
        the numbers or another epoch, or if it has connected to another server that does not have the last entry that it
        read. It then makes the log begin a new epoch, and reads the stream from the start. Its callers recognize
        entries that they already have by id and revision.
        Example: a follower has read the entries 1 to 10 when the primary fails. The new primary has 1 to 8, and stores
        another entry as 9. The follower connects to the new primary and does not find entry 10. So it makes the log
        begin a new epoch, and reads all entries again.
        Redis makes the ids in a stream from the clock of its host. If the clock was set back, new items may have lower
        ids than before, and a reader that waits for higher ids would get nothing. So at the end of the stream a
        follower also compares its epoch with the log's.
Rule 2  Each process keeps in memory the bytes of all entries of alerts that have not ended, including entries of later
        releases (LogG5). When a new epoch begins, and when another server answers, the process puts back the entries
        that the log has lost. Cancelled alerts are put back first, and the others a second later. The entries of one
        alert are put back next to each other; the field `m` marks them as one piece. Their numbers may have gaps,
        because perhaps no process has the old entries any more.
        Example: the log has lost an alert's revision 1 and its cancel. Node A knows only revision 1; node B knows both.
        If A were first, every node would send an alert that is over. But B puts back both with one script, during the
        second in which A waits.
Rule 3  If the log now has another entry under the number of a lost entry (a split brain), the log's entry stays, and a
        conflict is counted. But if the lost entry is a cancel, somebody already relies on it, so it is appended again
        under the next number. So are the `end` of a call, and a `claim` (by which a responder got a seat) unless the
        seat was given back. Each `end` and `claim` is appended only once: every node first searches the log for an
        entry with the same encrypted part (LogC5).
        Example: node A appends a cancel as entry 2 of an alert. Then A and the old primary are cut off from the others,
        and node B appends revision 2 at the new primary. When A is connected again, the log has B's revision 2, and A
        appends its cancel as entry 3.
Rule 4  A process that has read the `end` of a call drops the call's `call` entries from its memory, because they
        contain the place of the incident. And the script that puts entries back refuses a `call` entry after an `end`
        (LogC4).
        Example: the place of a call was deleted ten minutes after its end. A node that was cut off at the time still
        has it. Without the check in the script, this node would write the place to the log again.

The modules. Each has its own state; a drawing in ARCHITECTURE.md shows which module imports which:

    log         the class RedisStreamsLog           heartbeat        whether Redis can keep the log, every second
    follower    reads the stream                    repair           Rules 2 to 4; the entries kept in memory
    appender    the queue of appends                delivery_counts  how often each revision was delivered
    writer      scripts whose writes are durable    history          Rule 1: state and decisions, without I/O
    stored      entries and ids in the stream       connection       the only module that imports redis
    reading     which server followers read
    tail        a reader for other programs         target, scripts  the addresses of Redis; the scripts in lua/
"""

from .log import RedisStreamsLog

__all__ = ["RedisStreamsLog"]
