"""`make demo`: a node, a city of simulated subscribers, a review desk, a live map, and a verdict on who was told.

    show         the acts, in order -> progress (what of them is shown in the terminal)
    processes    the node and the crowd's processes; crowd plays the subscribers in one of them
    population   who the subscribers are, and how they move
    verdict      who had to be told, by a haversine of its own
    live_map     what the live map's page is told that a subscriber can't know

population and verdict do no I/O and have no clock of their own.
"""
