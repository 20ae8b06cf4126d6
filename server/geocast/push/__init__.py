"""Web Push: alerts for phones that sleep, by the push services of their browsers and systems.

A device is a row of the hub, as a session is, and its push endpoint is its transport. One request is under way for a
device at a time, and its row is paused meanwhile. So a push that fails is a slow client: it is told the newest that it
is owed, and there is no queue of retries.
"""
