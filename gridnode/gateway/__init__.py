"""The gateway: what a container takes for Redis. docs/delivery.md tells what it promises.

resp           bytes <-> commands and replies (hiredis, with limits)
conversation   one connection: who it is, in which protocol and order it is answered
desk           one run: what it gets and gives, and how it ends; with its commands: pop_commands,
               own_lists, looks (LLEN, LRANGE, ...), foreign (further keys), stream_reads (XREAD),
               arguments
outside        what a desk needs of the node
open_work      the transaction of a run
repeated_pushes  what a client sends again counts once
constants      values of further keys that never change
stock          the items that the node has leased and not handed out, and who waits for some
pace           how many those should be
outbox         what Redis has still to be told
watched_streams  which streams are waited for, by whom
---            above: no sockets, no clocks
server         the connections of a slot
link           a connection to Redis for many calls at once
ledger         all dealings with the task's Redis; with asks (what containers want to know) and
               far_results (their Redis is another one; delivered: what it was told lately)
stream_line    waits for entries of streams
clock          by which leases are measured
leased         puts it together, for slots (gridnode.delivery)
"""
