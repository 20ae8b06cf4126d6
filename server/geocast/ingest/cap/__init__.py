"""The Common Alerting Protocol: messages of CAP 1.2 (OASIS, 2010), 1.1 and 1.0, and the alerts made from them.

    bytes ── xml.parse ──> Element ── message.read ──> CapMessage ── language_groups.of ──> Block, Block, …

    CapMessage ── draft ──> Draft, Draft, …       the alerts that it would be published as, by the policy
       │                    │
       v                    v
    the log ── decision ──> Decision: an outcome and steps ── service ──> the log

xml              a safe parser: bytes -> a small tree of elements
message          the message as data classes, with every field checked
texts            texts are cleaned up and cut to a maximum length
shapes           `circle` and `polygon`: texts -> numbers
language_groups  infos that say the same in several languages become one alert
zones            the polygons for the codes of areas
sources          the systems that may send messages, and the senders that they may speak for
ids              the ids of alerts from CAP
decision         a pure function: a message and the log's histories -> what happens to it
draft            the alerts that a message would be published as
service          the path of a message from its bytes to its answer, with the log

The routes of the HTTP interface are in `api.routes_cap`.
"""
