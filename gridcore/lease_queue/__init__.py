"""The lease queue: every item in exactly one place, whatever dies.

    pushed = committed + waiting + leased + dead

A node *takes* items, which makes them leases of that node; it *commits* them together with their
results, or *gives* them *back*. A node that falls silent is *reaped*: its leases return, and what
it commits later finds no lease and is dropped.

    keys       every Redis key, and how an item is written in it
    scripts/   one Lua script a transition
    queue      calls them (the only module with I/O)
    times      how long a lease holds

The gateway (gridnode.gateway) stands on this; docs/delivery.md says what both promise.
"""
