"""The commands of `python -m client_demo`: one module for each group of commands.

cli            the group itself, and the commands `map` and `demo`
listen         listen, walk
respond        respond
pager          pager
dispatch       dispatch
call           call open, revise, end, show, list
desk           desk
review         review
conformance    conformance
command        the code that the commands share: how they end, and some options
"""
