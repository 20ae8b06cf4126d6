"""The ledger: who approved and published what, and when, in a chain of lines that can't be changed in silence.

A process of its own follows the log, which it only reads, and writes a line for each entry (docs/ledger.md). Nodes know
nothing of it, and no alert waits for it.

    log ── alertlog/tail ──> sights ── recording ──> records ── files ──> DIR/2031-05-01.jsonl, ….content.jsonl
                                                            │ chain: each line has the hash of the line before
    verifying  <────────────────────────────────────────────┘

    chain      a line, and what comes behind it: pure
    recording  what is seen -> what is written of it: each entry once, however often the log gives it
    files      the files: appended to, synced, mended after a crash
    verifying  whether all of it fits together still
"""
