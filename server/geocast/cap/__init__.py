"""CAP 1.2 (OASIS, 2010), 1.1 and 1.0: what issuers of official warnings send.

    bytes ── xml.parse ──> Element ── message.read ──> Message ── blocks.of ──> Block, Block, …

xml       a document as a small tree, and no more than that: nothing is fetched, expanded or believed
message   what the message says, by the words of CAP, each field checked
texts     tidied, and cut to length
shapes    `circle` and `polygon`: texts -> numbers
blocks    infos that say the same in several languages are one alert

What is read becomes an alert of nobody's yet: there is no call that takes CAP. `geocast cap` says what was read.
"""
