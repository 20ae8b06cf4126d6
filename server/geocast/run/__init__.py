"""Running a node, and the commands that run beside one.

node       a node in one process: the log, the api listener and the stream listener on one loop
workers    a node in several processes, for more sessions than one core can serve: a supervisor, an api process and
           stream processes, which talk over a `channel` (`links`) and are made by `forking`
runtime_config, key_source   what a reload replaces: keys, policy, publishers, sources
reload_mailbox               how the processes of a node get the same reload
ledger, push, push_workers   `geocast ledger` and `geocast push`
supervising, threads         replacing processes that died; threads for slow work
"""

import os

# When numpy is imported, its linear algebra starts a thread for each core. Nothing here would use the threads, and a
# process that has threads must not fork. This line has to run before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
