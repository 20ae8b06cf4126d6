"""What the review desk and the dispatch page share: pages where staff sign in with a key of their own.

sign_in    who sends a request, and whether the request comes from the page itself
changes    what an open page has to be told of
decisions  why a decision is refused, and the requests to the node that carry it out
service    the routes: files, sign-in, events, decisions
run        settings, the listener and the links that sign people in
"""
