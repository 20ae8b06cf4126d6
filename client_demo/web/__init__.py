"""The web client (`geocast/`), the pages of the live map (`map/`) and of the review desk (`desk/`), and their server.

server    serves a page and its files to this machine; it imports no other package of client_demo
"""
