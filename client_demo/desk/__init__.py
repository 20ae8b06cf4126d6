"""The review desk: a page and the service behind it, where people decide which incidents of a feed become alerts.

    feed in      source (replays a file or polls a URL) -> feeds (rows to incidents), by feed_format (the meaning of the
                 columns: feed_formats/*.toml, or a city's own) -> queue (incidents, each with the desk's proposal)
    proposals    triage (which incidents the policy allows, and the words of alerts, from wording.toml)
    before that  check (a report on how the desk would read a feed)
    text         redaction (finds addresses, units, numbers), refusals (the node's refusals in plain words)
    decisions    queue (who decided what, pure) -> store (SQLite) -> alert_control (publish, revise, cancel, counts)
    the page     service (HTTP and server-sent events) -> client_demo/web/desk/desk.html
    together     run opens a desk, for the command line and for the demo

triage, redaction, refusals and queue do no I/O and have no clock of their own. The publisher's token stays in
`alert_control`: the page never sees it, and speaks to `service` only.
"""
