"""Calls for help: qualified people near are rung, ring by ring, and who takes a seat learns the exact place.

entries   what a call's chain in the log is made of: what everybody may read, and what is sealed
sealing   the secrets, sealed and opened, and the keys that do it
state     what a chain comes to: which content, which ring, who holds which seat, whether it is over
opening   entries with both of their parts, and a chain as far as it opens
request   what a dispatcher sends, and the circle that is shown of it
calling   the order of decisions: what a dispatcher may do, and who gets a seat
shown     what a dispatcher is answered, and how a call stands
aeds      defibrillators of a map: which are near, and which one a responder fetches
claiming  may this responder have a seat?
messages  what responders are told: the ring, the task, that they may stand down
live_call, responders, board   what is live in one process: calls, who is on duty, who is told what
errands   what these want done in the log, and what time brings about
"""
