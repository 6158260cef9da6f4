"""The engine on a grid. A call is an item of a task whose containers run `runner`.

In the driver:
    engine    its connections, and what they bring
    place     calls as items, actors, and the runs that have them
    hub       the task that all drivers of a kind share
    values    large values in the task's Redis
    own_code  modules that no other machine has

In a container, with nothing installed besides cloudpickle:
    runner    takes items, and has worker processes run them
    share     what it does for one driver
    letters   what it tells a driver, in order and more than once if need be
    mailbox   what a driver tells it
    versions  whether what the driver has is here as well

Both:
    link      a connection to Redis, or to the gateway that looks like it
    resp      its protocol
    messages  what travels: items, letters, orders
    keys      where

Everything may arrive twice and nothing is lost: items are leased, letters and orders are numbered,
lists are streams whose entries stay until they are read, and the first result of a call counts.
"""
