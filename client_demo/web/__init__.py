"""The web client (`geocast/`), the pages of the live map (`map/`) and of the review desk (`desk/`), and their server.

server    serves a page and what it needs to this machine; it imports nothing of the rooms beside it
"""
