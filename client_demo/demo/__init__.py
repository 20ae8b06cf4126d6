"""`make demo`: a node, a city of simulated subscribers, a review desk, a live map, and a verdict on every delivery.

    show            runs the acts of the demo in order -> progress (their output in the terminal)
    processes       runs the node and the crowd's processes; in each of these, crowd simulates some of the subscribers
    population      makes the subscribers: where they are, and how they move
    responders      makes the subscribers who are called to people in need; issuing signs their tokens
    cardiac_arrest  makes the call for help, from a dispatch record to the crew's arrival -> call_verdict judges it
    warnings_feed   serves a feed of warnings, runs the process that reads it, and judges what became of them
    verdict         judges the deliveries, with a distance formula of its own (haversine)
    webhooks        runs `geocast relay` and a receiver, and judges what the receiver was told
    responder_page  serves the page of a responder who is a real person
    live_map        serves the live map, with the facts that a subscriber can't know

population, responders and both verdicts do no I/O and have no clock of their own.
"""
