"""The HTTP API: one listener for publishers, dispatchers, sources of CAP messages, and operators.

http_server    connections and the HTTP parser
middleware     limits, authentication and request bodies: all checks before a route does its work
context        the services and limits that the routes use
answers        the types of the JSON bodies in answers
responses      functions that build answers and problem documents
routes_alerts  routes for alerts, policy, health and metrics
routes_calls   routes for calls for help
routes_cap     the route for CAP messages
openapi, examples   the document that describes the API
pages          the two documentation pages for people, and their files in static/
drain          the orderly shutdown of a listener
"""
