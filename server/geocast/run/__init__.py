"""The two ways to run a node.

node       in one process: the log, the api listener and the stream listener on one loop
workers    in several, for more sessions than one core can serve: a supervisor, an api process, stream processes;
           they talk over a `channel`
"""
