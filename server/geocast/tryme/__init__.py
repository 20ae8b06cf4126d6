"""Own tests: test alerts that subscribers ask for, to see whether alerts reach their own device (rules TR1 to TR8).

An *own test* is an alert that a process makes for one session or push device, and sends to it alone.

alerts    makes own tests, and counts how many each subject has asked for
port      the interface through which the stream uses them

The rules are in docs/protocol.md, "Own tests". This list says which code implements them:

TR1  how a session asks: `stream/session`; how a push device asks: `push/registering`
TR2  the content of an own test: `alerts`, with the table `[test]` of the policy (`policy/own_test`)
TR3  an own test is sent to nobody else, and to the recipient whatever its filter and its scopes are: `stream/hub`
TR4  an own test is in no log, feed or count, and is never revised or cancelled: `ingest/publish` refuses its id
TR5  one own test in an hour for each subject, counted per process: `alerts`
TR6  a session or device without a place is refused: `stream/session`, `push/registering`
TR7  a client lists an own test in `holding` like any alert, and a node treats it as an unknown id: `stream/live_alerts`
TR8  how an own test is pushed: `push/own_tests`
"""
