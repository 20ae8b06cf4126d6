"""Warnings that come from issuers as CAP: whose they are, which alert each is about, and what becomes of it.

    bytes ── cap ──> Message ── drafting ──> Draft, Draft, …       what it would be published as, by the policy
                        │                       │
                        v                       v
              the log ── deciding ──> Decision: an outcome and steps ── taking ──> the log

sources   who may send messages here, and for whom
naming    ids: where in the log a message is looked for
deciding  what a message is to what the log knows: a pure function, with the table of it
drafting  what a message is published as: the policy, the shapes, the texts
taking    one message from bytes to its answer, with the log

Reading CAP is `cap`'s; HTTP is `net`'s.
"""
