"""Signed approvals: reviewers sign each alert before it is published, and every process checks their signatures.

    new entry ── form ──> text to sign ── a reviewer's key ──> signatures ────────────┐
                                                                                      v
    request with `approval: {form, signatures}` ── request_check (AP1 to AP8) ──> entry with its proof ──> log
                                                                                               │
          the entry with the signed content, or nothing <── verifier (NC1 to NC6) <───────────────┘

form           an entry -> the text that reviewers sign, and back
signatures     detached JWS with Ed25519: sign and verify
reviewers      the file of reviewers' keys
asked          how many reviewers must sign, given the policy and all revisions of the alert
request_check  the check of an approval when a request comes in
verifier       the check of each entry that a process reads from the log
"""
