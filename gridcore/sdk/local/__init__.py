"""The engine on this machine.

scheduler      which call runs where; pure
records        what the driver knows of calls, values and actors
objects        values, who holds them, and the limit on memory
core           all state, and each change of it
actors         their part of it
driver         the lock, the waiting, the sockets
pump           who reads the sockets
crew           worker processes, as the driver sees them
template       the process that they are forked from
worker         a worker's life
running        one call in a worker
worker_engine  what calls ask for inside a worker
frames         messages on a socket, with descriptors
capacity       what this machine offers
endings        what an exit code says
"""
