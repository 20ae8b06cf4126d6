"""A log in one SQLite file, for one machine and any number of its processes.

    append ──> queue ──> thread "log-writer": BEGIN IMMEDIATE, up to 500 inserts, COMMIT (fsync) ──> True or False
                                                                          │
    follow <── rows <── thread "log-reader" <── data_version changed <────┴── inotify: the write-ahead log was written

How this backend keeps the rules of the `alertlog` package:

LogA1,
LogA2   A batch of appends is one `BEGIN IMMEDIATE` transaction. So at any time only one writer in all processes can
        read the last number of an alert and insert an entry with the next one.
        Example: processes A and B append different revisions 2. A has the write lock. B waits for the lock, then finds
        that number 2 is taken, and its `append` returns False.
LogA3   In WAL mode with `synchronous=FULL`, COMMIT returns after the fsync. All appends that come in during a commit
        share the next commit (group commit), so 500 concurrent appends take a few fsyncs.
        Example: the machine loses power after COMMIT and before the answer. The entry is in the file. If the publisher
        repeats the request, the answer is the stored entry.
LogA4   Readers see only committed rows, and a commit in WAL mode is visible only after it is synced.
LogF1   Positions are AUTOINCREMENT row ids, assigned inside the write transaction. So they rise in the order of commits
        and are never used twice, not even after the last rows were purged.
LogF2   Followers (the readers that wait for new entries) notice at once what this or another process appends
        (`follower`).
LogL2   An index on (ends_at, id) has the order of LogL1, so a page can begin at any place in this order.
LogR1   Alerts are deleted only if both the wall clock and the trusted time of the file allow it (`trusted_time`).
LogR2   Each row has a CRC-32. A row with a wrong checksum, or with bytes that are not an entry, stays in the file. It
        is skipped and counted, and a log message gives its position. If SQLite can't read the file any more, all
        readable rows are copied into a new file, and the old file is renamed (`log_file`).
LogC3,
LogC4   The entries that contain the place of a call are in a partial index, whose condition compares the first bytes of
        an entry. So SQLite maintains the index by itself, whichever release writes. Deleted entries are overwritten in
        the file. The write-ahead log may have older copies of their bytes, so it is written back to the file and
        truncated.

There are two threads, each with a connection of its own: one writes, one reads. The event loop has a third connection,
on which it reads `data_version` and small batches. Before each use of a connection, the log checks that the file and
its companions (`-wal`, `-shm`) are still at their paths.
Example: an operator replaces the file with a backup while the node runs. The open connections still use the old file,
which has no name any more, so every new entry would be lost. Appends raise LogUnavailable instead.
"""
