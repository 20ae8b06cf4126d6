"""The AsyncAPI document of the stream, and the page that shows it. `python -m docs.asyncapi` writes their files."""
