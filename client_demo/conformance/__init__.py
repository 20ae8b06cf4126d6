"""A conformance kit for authors of clients: test vectors, and a server that plays the protocol to any client.

    vectors/         cases as JSON, made by make_vectors with calculations of its own
    scripted_server  the server's side: connections, received messages, and the clock that the server claims to have
    scenarios        the scenarios, each with the duties of a client that it checks
    run              one client process for each scenario, several at a time; the report

README.md explains the use; the command is in `client_demo/terminal`.
"""
