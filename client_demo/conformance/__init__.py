"""For authors of clients: what is right (`vectors/`), and a server that plays the contract to any client.

    vectors/         cases as JSON, made by make_vectors from a calculation of their own
    scripted_server  the server's side: connections, what was said on them, the clock that it claims to have
    scenarios        what is played, and what a client has to do then
    run              one client process for each scenario, side by side; the report

README.md tells how to use it; the command is in `client_demo/terminal`.
"""
