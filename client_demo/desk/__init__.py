"""The review desk: a page and the service behind it, where people decide which incidents of a feed become alerts.

    the feed     source (replays a file or polls a URL) -> feeds (makes incidents of rows) with feed_format (says what
                 the columns mean; the descriptions are feed_formats/*.toml or a city's own) -> queue (incidents, each
                 with the desk's proposal)
    proposals    triage (decides which incidents the policy allows, and takes the words of alerts from wording.toml)
    text         redaction (finds addresses, units, numbers), refusals (says in plain words why the node refused)
    decisions    queue (who decided what) -> store (SQLite) -> alert_control (publishes, revises, cancels, gets counts)
    the page     service (HTTP and server-sent events) -> client_demo/web/desk/desk.html
    a start      run opens a desk, for the command line and for the demo
    a new feed   check (reports how the desk would read a feed)

triage, redaction, refusals and queue do no I/O and have no clock of their own. Only `alert_control` has the publisher's
token: the page never sees the token, and talks only to `service`.
"""
