"""`make demo`: a node, a city of simulated subscribers, a review desk, a live map, and a verdict on who was told.

    show         the acts, in order -> progress (what of them is shown in the terminal)
    processes    the node and the crowd's processes; crowd plays the subscribers in one of them
    population   who the subscribers are, and how they move
    responders   who of them is called to who needs help; issuing signs their tokens
    calling      the call for help, from a dispatch record to the crew's arrival -> call_verdict
    verdict      who had to be told, by a haversine of its own
    responder_page  serves the page of a responder who is no simulation
    live_map     what the live map's page is told that a subscriber can't know

population, responders and both verdicts do no I/O and have no clock of their own.
"""
