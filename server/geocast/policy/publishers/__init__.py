"""What each publisher may do: the file of `--publishers` (docs/publishers.md).

    file.py           TOML and GeoJSON -> Publishers: strict, and whole or not at all
    bounds.py         whom a table covers, and what of a request lies beyond it (PG1, P21, P22)
    jurisdiction.py   where: polygons of a map
    rates.py          how often, on this node (PG2)

Nothing here does I/O but `read_publishers`, and nothing keeps where anything was asked for: P22 is a yes or a no.
"""
