"""The dispatch page and the service behind it, where people call responders to who needs help, and see who comes.

    records in   the desk's feeds -> records (which of them are calls for help, and what is wrong with them)
    decisions    call_control (what was asked of the node, and how each call stands) -> the node
    the page     service (HTTP and server-sent events) -> client_demo/web/dispatch/dispatch.html
    together     run opens it, for the command line and for the demo

The dispatcher's token stays in `call_control`: the page never sees it, and speaks to `service` only. The exact place is
shown to who is signed in; it is in no file, and forgotten when the call is over.
"""
