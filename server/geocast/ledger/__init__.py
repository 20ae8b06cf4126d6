"""The ledger: a chain of lines that records who approved and published what, and when.

A separate process follows the log, which it only reads, and writes one line for each entry (ledger.md). Nodes do
not know about the ledger, and no alert waits for it. Because each line contains the hash of the line before, nobody can
change a line without breaking the chain.

    log ── alertlog/tail ──> raw entries ── recording ──> records ── files ──> DIR/2031-05-01.jsonl, ….content.jsonl
                                                              │ chain: each line has the hash of the line before
    verifying  <──────────────────────────────────────────────┘

    chain      one line of the chain, and the line that follows it: pure functions
    recording  raw entry -> record: each entry once, even if the log gives it several times
    files      the files: append, sync, repair after a crash
    verifying  the check that chain, contents and signatures still fit together
"""
