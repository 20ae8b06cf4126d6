"""The processes of a node, and the commands that run beside a node.

node       a node in one process: the log, the api listener and the stream listener on one event loop
workers    a node in several processes, for more sessions than one core can serve: a supervisor, an api process and
           stream processes, which are started by `forking` and send each other datagrams (`channel`, `links`)
runtime_config, key_source   the values that a reload replaces: keys, policy, publishers, sources of CAP messages
channel                      how all processes of a node get the same configuration after a reload
ledger, push, push_workers   `geocast ledger` and `geocast push`
supervising, threads         replacing processes that died; threads for slow work
loop_watch                   logs which function kept the event loop from its other work
"""

import os

# When numpy is imported, its linear algebra library starts a thread for each core. A node would not use these threads,
# and a process that has threads must not fork. So this line has to run before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
