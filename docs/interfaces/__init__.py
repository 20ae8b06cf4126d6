"""The OpenAPI document of the HTTP API, the AsyncAPI document of the stream, and the page that shows the latter."""
