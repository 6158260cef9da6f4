"""The hub: an ordered task list, the fleet that works on it, and nothing kept outside Redis.

In reading order:

    keys          every Redis key of the hub
    scripts/      one Lua script a state transition, called through redis_store
    task_list     submit, next, finish, delete: the line of tasks
    fleet         register, heartbeat, stop, goodbye, lost: the nodes
    assignment    which image a node gets, and by which address it finds Redis (no I/O)
    waiting_for   why no node can work on a task (no I/O)
    pace          how often nodes report and when they are lost (no I/O)
    beats         joins the heartbeats of one moment into one round trip
    changes       wakes long polls when the task list moves or a node is asked to stop
    caretaker     once a second: who is lost, which task is drained
    drained       is the running task done (no I/O)
    lock          what only one replica may do at a time
    task_redis    a task's own Redis, which may be stuck or gone
    census        where the items of a leased queue are
    producers     who says that he will push more
    queue_lengths the same for a person, and for tasks without leases
    reach         for how long nodes could have renewed their leases (no I/O)
    licence       may this hub reap (no I/O)
    watched_queues  which queues may hold leases of lost nodes (no I/O)
    redis_watch   looks at those of one Redis, and gives the leases back
    reaper        which of the replicas does, and where
    dead_letters  lists and settles the items that failed too often
    api/          the HTTP calls; app puts them together
    api_page      /docs, a page about them that needs no Internet
    store/        the embedded Redis of a hub that is not given one
    service       starts and stops all of it in order
"""
