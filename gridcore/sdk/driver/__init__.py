"""The process that makes calls: it knows them, their values and who holds these, on any engine.

engine   the lock, the waiting, and what `Engine` offers to the API
core     all state, and each change of it
actors   their part of it
inbox    what workers say
streams  calls that return one value after the other
place    the seam to where calls run
objects  values, who holds them, and the limit on memory
records  what is known of calls, values, actors and workers
pump     who reads the sockets
"""
