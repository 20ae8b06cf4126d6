"""Approvals that are proved: reviewers sign what goes out, and every process checks it (docs/approvals.md).

    entry as it would be ── form ──> a text ── a reviewer's key ──> signatures ──┐
                                                                               v
    request with `approval: {form, signatures}` ── request_check (AP1 to AP8) ──> entry with its proof ──> log
                                                                                               │
                          what its form says, or nothing <── verifier (NC1 to NC6) <──────────────┘

form           an entry -> the text that is signed, and back
signatures     detached JWS with Ed25519: made, and checked
reviewers      whose keys count: a file
asked          how many have to sign, by the policy and the whole chain of the alert
request_check  what is asked of an approval when a request comes
verifier       which entries of the log a process believes
"""
