"""The gateway: what a container takes for Redis. docs/delivery.md tells what it promises.

resp           bytes <-> commands and replies (hiredis, with limits)
conversation   one connection: who it is, in which protocol and order it is answered
desk           one run: its pops and pushes; with looks (LLEN, LRANGE, ...), foreign (further
               keys) and arguments
open_work      the transaction of a run
stock          the items that the node has leased and not handed out, and who waits for some
pace           how many those should be
outbox         what Redis has still to be told
---            above: no sockets, no clocks
server         the connections of a slot
link           a connection to Redis for many calls at once
ledger         all dealings with the task's Redis
leased         puts it together, for slots (gridnode.delivery)
"""
