"""The ways in which alerts come in.

publish  requests of publishers
cap      CAP messages
fetch    the process `geocast fetch`, which reads feeds and posts their CAP messages to a node
"""
