"""The HTTP API: one listener for publishers, dispatchers, CAP sources and operators.

http_server    connections and the HTTP parser
middleware     limits, authentication and bodies, before a route is called
context        the services and limits that the routes use
answers        the types of the answers
responses      answers and problem documents
routes_alerts  alerts, policy, health and metrics;  routes_calls  calls for help;  routes_cap  CAP messages
openapi, openapi_calls, asyncapi, examples, stream_html   the documents that describe the API and the stream
pages          the two pages for people, and their files in static/
drain          the orderly shutdown of a listener
"""
