"""Worker processes, and what whoever has some needs: the engine on this machine, or the program
that a grid's containers run.

template       the process that workers are forked from
worker         a worker's life
running        one call in a worker
streams        one that yields
worker_engine  what calls ask for inside a worker
crew           worker processes, as whoever has them sees them
scheduler      which call runs where; pure
frames         messages on a socket, with descriptors
endings        what an exit code says
memory         whether the kernel killed one for its memory
"""
