"""The Redis of a hub that is not given one.

binary    which server program to run
settings  port and password, kept in the data folder
embedded  starts it, adopts one that still runs, restarts it, stops it with the last hub
"""
