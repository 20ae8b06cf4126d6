"""The Common Alerting Protocol: messages of CAP 1.2 (OASIS, 2010), 1.1 and 1.0, and the alerts made from them.

    bytes ── xml.parse ──> Element ── message.read ──> CapMessage ── language_groups.of ──> Block, Block, …

    CapMessage ── draft ──> Draft, Draft, …       the alerts that the message becomes under the policy
       │                    │
       v                    v
    the log ── decision ──> Decision: an outcome and steps ── service ──> the log

A message has one or more infos. An info is the content of the message in one language. Infos that say the same thing in
different languages are a block, and each block becomes one alert.

xml              a safe parser that turns bytes into a small tree of elements
message          the message as data classes, with every field checked
texts            functions that clean texts up and shorten them to a maximum length
shapes           a parser for the texts of `circle` and `polygon`
language_groups  the grouping of infos into blocks
zones            the polygons for the codes of areas
sources          the systems that may send messages, and the senders for which they may speak
ids              the ids of alerts made from CAP messages
decision         the decision on a message, computed from the message and the log's histories
draft            the alerts that a message becomes if it is published
service          the whole processing of a message, from its bytes to its answer

The routes of the HTTP interface are in `api.routes_cap`.
"""

MAX_CAP_BYTES = 2 * 1024 * 1024  # of the longest message that is accepted; real ones carry 600 KB of audio (rule CP2)
