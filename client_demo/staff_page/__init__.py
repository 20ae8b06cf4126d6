"""The common part of the review desk and the dispatch page, where staff sign in with a key of their own.

sign_in    keys, cookies and requests: who sends a request, and whether it comes from the page itself
changes    the open pages, and the items that have changed since each page was last updated
decisions  the reasons why a decision is refused, and the tasks that send decisions to the node
service    the routes: files, sign-in, events, decisions
run        the settings, the listener, and the links that sign people in
"""
