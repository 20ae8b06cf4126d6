"""The ledger: a chain of lines that records who approved and published what, and when.

A separate process reads the log as it grows, and writes one line for each entry (ledger.md). Nodes do not know about
the ledger, and no alert waits for it. Each line contains the hash of the line before, so changing a line breaks the
chain.

    log ── alertlog/tail ──> raw entries ── recording ──> records ── files ──> DIR/2031-05-01.jsonl, ….content.jsonl
                                                              │ chain: each line has the hash of the line before
    verifying  <──────────────────────────────────────────────┘

    chain      pure functions about a line of the chain, and the line that follows it
    recording  makes a record of each entry, once, even if the log delivers the entry several times
    files      the files: appending, syncing, and repair after a crash
    verifying  the check that chain, contents and signatures still match
"""
