"""Calls for help: notify qualified people near a patient, and send the exact place to those who are given a seat.

A seat is the assignment of one responder to a call. Each call has a limited number of seats. A call notifies people in
waves: each wave has a larger radius than the one before. In the log, a call is a chain: a series of entries with the
same id, numbered from 1.

request          a dispatcher's request, checked, and the circle that is published instead of the exact place
state            the state of a call, computed from its chain: content, radius, seats, and whether the call is over
encryption       encryption and decryption of the secret part of an entry, and the keys
decrypted_chain  the chain of a call, as far as it can be decrypted
service          the decisions: what a dispatcher may do with a call, and who gets a seat
dispatcher_view  the answers that a dispatcher gets
aeds             the defibrillators of a map: which are near, and which one a responder fetches
eligibility      the conditions for a seat, and the reason if a responder does not meet them
pending_accept   the states of an `accept` that waits for its answer
messages         the messages to responders: the call, the task, and the notice to stand down
live_call, registry, responders   the calls and the responders of one process
delivery         what one session was sent about one call, and the table of what it is sent next
owed             which sessions are owed which messages
hub              what a session, an entry of the log and the passing of time change
port             the interface through which the hub of sessions uses calls, as a process without calls has it
worker           the tasks that append to the log, and that do what is due at some time
openers          the dispatchers of the open calls, and how many calls one dispatcher may open
"""
