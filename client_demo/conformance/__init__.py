"""A conformance kit for authors of clients: test vectors, and a server that follows a script to test any client.

    vectors/         test cases as JSON, which make_vectors has computed without code of the server or a client
    scripted_server  the server's side: connections, received messages, and a clock that may be wrong
    scenarios        the scenarios: each says what the server does, and which duties of a client this checks
    run              runs one client process for each scenario, several at a time, and makes the report

README.md explains the use; the command is in `client_demo/terminal`.
"""
