"""The review desk: a page and the service behind it, where people decide what of a dispatch feed becomes an alert.

    feed in      source (a file replayed, a URL polled) -> feeds (rows to incidents), by feed_format (which columns tell
                 what: feed_formats/*.toml, or a city's own) -> queue (incidents, each with what the desk proposes)
    proposals    triage (what the policy allows, of what natures mean; the words, from wording.toml)
    before that  check (what the desk would make of a feed)
    text         redaction (what must not be told: addresses, units, numbers), refusals (of the node, in plain words)
    decisions    queue (who decided what, pure) -> store (SQLite) -> alert_control (publish, revise, cancel, counts)
    the page     service (HTTP and server-sent events) -> client_demo/web/desk/desk.html
    together     run opens a desk, for the command line and for the demo

triage, redaction, refusals and queue do no I/O and have no clock of their own. The publisher's token stays in
`alert_control`: the page never sees it, and speaks to `service` only.
"""
