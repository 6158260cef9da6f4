"""The lease queue: every item in exactly one place, whatever dies.

    pushed = committed + waiting + leased + dead

A node *takes* items, which makes them leases of that node; it *commits* them together with their
results, or *gives* them *back*. A node that falls silent is *reaped*: its leases return, and what
it commits later finds no lease and is dropped. A *producer* says from time to time that it will
push more, so that a queue that is empty is not taken for done.

    keys       every Redis key, and how an item is written in it
    scripts/   one Lua script a transition
    queue      calls them (the only module with I/O)
    times      how long a lease holds, and a producer's word

The gateway (gridnode.gateway) stands on this; docs/delivery.md says what both promise.
"""
