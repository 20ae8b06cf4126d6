"""The public feed: all live alerts over HTTP, for everybody, without a token (protocol rules PF1 to PF5).

Each alert is drawn once: a *picture* has the alert's part of each document, as bytes. Answers are put together from
pictures.

    log ── reader ──> live alerts ── gallery <── a Picture of each ── drawer, a separate process
                                       └──> cache: bodies, each made at most once a second ──> routes

map_polygons  shapes on the sphere -> polygons of a flat map
geojson       all live alerts as GeoJSON features
atom          all live and cancelled alerts as Atom entries, which link to CAP messages
cap           one alert, or its cancel, as a CAP 1.2 message
picture       the parts of these three documents for one alert, as bytes
drawer        the process that draws pictures, and how the node communicates with it
gallery       the pictures of all live alerts, and the alerts that wait to be drawn
cache         bodies of answers, their ETags, and how long they may be kept
areas         the requests of weather apps
share         the part of the process's time that these may take
routes        the HTTP listener of the feed
"""
