"""Calls for help: notify qualified people nearby, wave by wave, and give the exact place to those who take a seat.

request          what a dispatcher sends, and the circle that is published of it
state            what a chain of entries comes to: its content, its radius, who has which seat, whether it is over
encryption       the secrets of a call, encrypted and decrypted, and the keys for it
decrypted_chain  the chain of a call, as far as it can be decrypted
service          what a dispatcher may do with a call, and who gets a seat
dispatcher_view  what a dispatcher is answered
aeds             defibrillators of a map: which are near, and which one a responder fetches
eligibility      who may have a seat, and the reason if not
pending_accept   the states of an `accept` that waits for its answer
messages         what responders are sent: the call, the task, that they may stand down
live_call, responders, hub   what lives in one process: calls, responders on duty, who is sent what
port             what the sessions' hub asks of calls, and the answers of a process without calls
worker           what these append to the log, and what is due at a time
openers          when a dispatcher may open another call
"""
