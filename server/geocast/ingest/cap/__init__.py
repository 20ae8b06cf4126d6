"""CAP 1.2 (OASIS, 2010), 1.1 and 1.0: warnings that issuers send, and what they become in the log.

    bytes ── xml.parse ──> Element ── message.read ──> Message ── language_groups.of ──> Block, Block, …

    Message ── draft ──> Draft, Draft, …       what it would be published as, by the policy
       │                    │
       v                    v
    the log ── decision ──> Decision: an outcome and steps ── service ──> the log

xml              a document as a small tree, and no more than that: nothing is fetched, expanded or believed
message          what the message says, by the words of CAP, each field checked
texts            tidied, and cut to length
shapes           `circle` and `polygon`: texts -> numbers
language_groups  infos that say the same in several languages are one alert
zones            what the codes of CAP's areas stand for
sources          who may send messages here, and for whom
ids              where in the log a message is looked for
decision         what a message is to what the log knows: a pure function, with the table of it
draft            what a message is published as: the policy, the shapes, the texts
service          one message from bytes to its answer, with the log

HTTP is `api.routes_cap`.
"""
