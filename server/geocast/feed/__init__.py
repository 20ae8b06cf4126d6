"""The public feed: all live alerts, for whoever asks (protocol rules PF1 to PF5).

    log ── reader ──> live alerts ── geojson, atom, cap ──> a body, made at most once a second ──> net/feed

drawing   shapes on the sphere -> rings on a map
geojson   all of them, as features
atom      all of them, and what was called off, as entries that link their CAP messages
cap       one of them, as a message of CAP 1.2
bodies    a body, its tag, and how long it may be kept
"""
