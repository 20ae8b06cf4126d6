"""Signed approvals: reviewers sign each alert before it goes out, and every process checks them (approval-rules.md).

    entry to be written ── form ──> text to sign ── a reviewer's key ──> signatures ──┐
                                                                                      v
    request with `approval: {form, signatures}` ── request_check (AP1 to AP8) ──> entry with its proof ──> log
                                                                                               │
          the entry as its form says it, or nothing <── verifier (NC1 to NC6) <───────────────────┘

form           an entry -> the text that reviewers sign, and back
signatures     detached JWS with Ed25519: sign and verify
reviewers      the file of reviewers' keys
asked          how many reviewers must sign, by the policy and all revisions of the alert
request_check  the check of an approval when a request comes in
verifier       the check of each entry that a process reads from the log
"""
