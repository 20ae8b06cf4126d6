"""The limits of each publisher: what, where and how often (option `--publishers`; docs/guide/publishers.md).

    file.py           the parser of the publishers' file (TOML, GeoJSON), which accepts the whole file or nothing
    bounds.py         the limits of a publisher, and the parts of a request that exceed them (PG1, P21, P22)
    jurisdiction.py   the area in which a publisher may publish: polygons of a map
    rates.py          how often a publisher may publish on this node (PG2)

Only `read_publishers` does I/O. Nothing here stores a requested place: the check of a place (P22) only says yes or no.
"""
