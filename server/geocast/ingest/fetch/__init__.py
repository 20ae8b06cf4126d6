"""`geocast fetch`: reads feeds of CAP messages and posts each message to a node (docs/guide/fetch.md).

A separate process reads the feeds; nodes fetch nothing. It posts every message unchanged to `POST /v1/cap`, where the
node decides what becomes of it.

    FE1  A TOML file lists the feeds. Only https to public addresses is used, unless a feed's table allows more.
    FE2  Atom, RSS 2.0, EDXL-DE and a bare CAP message are read. Messages are in the feed or behind links.
    FE3  Requests are conditional, up to four at a time for each host, and as rare as the server asks for.
    FE4  An entry is done when its outcome is stored. Until then its message is tried again; only the node's answer, or
         the configuration, is final.
    FE5  Messages that are due together are posted in the order of `sent`.
    FE6  Metrics say how old each feed is, and how long a message took from its issuer to the node.
    FE7  Several processes may read the same feeds: the node answers a repeated message with 200.

    feeds ──> http_client ──> documents ──> entries ──┐
                                                      ├──> reader ──> node_client ──> POST /v1/cap
    settings, state (SQLite), timing, outcomes ───────┘

    settings     the command's options, and the file of feeds
    http_client  GET requests with limits on hosts, addresses, redirects, sizes and time
    documents    the entries of a feed, and what `fetch` has to know about a CAP message
    state        what became of each entry, in one SQLite file
    timing       pure functions: when to read a feed or try a message again
    node_client  posts a message to a node, and says what its answer means
    reader       reads one feed and posts its messages
    outcomes     metrics, and the reasons for being unready
    checking     `--check`: a table of what the node would do with each feed
"""
