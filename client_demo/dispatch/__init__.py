"""The dispatch page and its service, where people call responders to a person in need and see who is coming.

    records      the desk's feeds -> records (says which records are calls for help, and what prevents a call)
    decisions    call_control (sends requests to the node, and follows the state of each call) -> the node
    the page     service (HTTP and server-sent events) -> client_demo/web/dispatch/dispatch.html
    a start      run opens the page, for the command line and for the demo

Only `call_control` has the dispatcher's token: the page never sees the token, and talks only to `service`. The exact
place of a call is shown only to people who are signed in. It is never stored in a file, and is deleted when the call is
over.
"""
