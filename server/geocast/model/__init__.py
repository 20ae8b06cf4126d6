"""The plain data that the server works on: alerts, entries of calls, languages, errors, problems, close codes.

alert           accepted alerts, which have only published shapes
members         the lists of the alerts' members, which the code that stores, signs and sends alerts uses
call            the entries of a call for help in the log
qualifications  the form of the qualifications of responders
times           the conversion of times to and from text
languages       the choice of the text that a subscriber is sent
errors          the exceptions that geocast raises on purpose
problems        all unsuccessful HTTP responses
close_codes     all WebSocket close codes, each with its text, and whether a client reconnects
"""
