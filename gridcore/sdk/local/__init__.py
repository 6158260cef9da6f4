"""The engine on this machine.

engine    the sockets of its workers
place     which worker runs which call
capacity  what this machine offers
"""
