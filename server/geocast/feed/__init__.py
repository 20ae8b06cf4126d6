"""The public feed: all live alerts, for whoever asks (protocol rules PF1 to PF5).

    log ── reader ──> live alerts ── gallery <── a Picture of each ── drawer, a process
                                       └──> cache: bodies, each made at most once a second ──> routes

map_polygons  shapes on the sphere -> rings on a map
geojson       all live alerts, as features
atom          all of them, and what was called off, as entries that link their CAP messages
cap           one of them, as a message of CAP 1.2
picture       what these three show of one alert, as bytes
drawer        the process in which pictures are made, and how it is asked
gallery       which pictures there are, and which are wanted
cache         a body, its tag, and how long it may be kept
joining       parts of a body in one piece
"""
