"""`make demo`: a node, a city of simulated subscribers, a review desk, a live map, and a verdict on every delivery.

    show            the acts, in order -> progress (their output in the terminal)
    processes       the node and the crowd's processes; crowd plays the subscribers in one of them
    population      the subscribers: who they are, and how they move
    responders      the subscribers who are called to people in need; issuing signs their tokens
    cardiac_arrest  the call for help, from a dispatch record to the crew's arrival -> call_verdict
    verdict         the judge of the deliveries, with an independent haversine
    responder_page  serves the page of a responder who is a real person
    live_map        serves the live map, with the facts that a subscriber can't know

population, responders and both verdicts do no I/O and have no clock of their own.
"""
