"""A conformance kit for authors of clients: test vectors, and a server that plays the protocol to any client.

    vectors/         test cases as JSON, which make_vectors has computed without code of the server or a client
    scripted_server  the server's side: connections, received messages, and a clock that may be wrong
    scenarios        the scenarios that are played to a client, each with the duties of a client that it checks
    run              runs one client process for each scenario, several at a time, and makes the report

README.md explains the use; the command is in `client_demo/terminal`.
"""
