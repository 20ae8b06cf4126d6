"""The dispatch page and its service, where people call responders to a person in need and see who is coming.

    records in   the desk's feeds -> records (which records are calls for help, and what prevents a call)
    decisions    call_control (requests to the node, and the state of each call) -> the node
    the page     service (HTTP and server-sent events) -> client_demo/web/dispatch/dispatch.html
    together     run opens it, for the command line and for the demo

The dispatcher's token stays in `call_control`: the page never sees it, and speaks to `service` only. The exact place is
shown only to people who are signed in. It is in no file, and is deleted when the call is over.
"""
