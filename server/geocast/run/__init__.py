"""The two ways to run a node.

node       in one process: the log, the api listener and the stream listener on one loop
workers    in several, for more sessions than one core can serve: a supervisor, an api process, stream processes;
           they talk over a `channel` (`links`), and are made by `forking`
runtime_config, key_source   what a reload replaces: keys, policy, publishers, sources
reload_mailbox               how the processes of a node agree on a reload
ledger, push, push_workers   the commands that are no node
supervising, threads         restarts of processes; threads for what blocks
"""

import os

# numpy's linear algebra starts a thread for each core when it is imported, which nothing here would use, and a process
# that has threads must not fork. No module imports numpy before this one, but those that `run` is made of.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
