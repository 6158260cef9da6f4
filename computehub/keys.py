"""Every Redis key of the hub, in one Cluster slot.

TASKS      hash    name -> the task as submitted (JSON)
TIMES      hash    submitted:<name>, started:<name>, completed:<name>, worked:<name> -> ms
PENDING    list    names, the next at the left
CURRENT    string  the running task's name
COMPLETED  list    names, the latest at the right
VERSION    string  a token that changes with CURRENT and is never used again
NODES      hash    node -> as registered (JSON)
REPORTS    hash    node -> its last heartbeat (JSON)
SEEN       zset    node -> ms of its last sign of life
DEADLINES  zset    node -> ms after which it is lost; a lost node is not in it
LOST       hash    node -> ms at which it was declared lost
STOPS      set     nodes that are asked to stop
FAILURES   list    what nodes reported (JSON), the newest at the left, bounded
SERVICE    hash    since, last -> ms: the hub has served without a gap since then
AGENTS     hash    node -> which of its agents registered last; none for one that does not say
REAPER     string  the hub that reaps, until it expires
SETTLING   string  + queue: the hub that walks through its dead letters, until it expires

All times are Redis' own, in milliseconds. CHANGED is the channel that says "look again".
"""

from __future__ import annotations

_PREFIX = "gc:{hub}:"

TASKS = _PREFIX + "tasks"
TIMES = _PREFIX + "times"
PENDING = _PREFIX + "pending"
CURRENT = _PREFIX + "current"
COMPLETED = _PREFIX + "completed"
VERSION = _PREFIX + "version"

NODES = _PREFIX + "nodes"
REPORTS = _PREFIX + "reports"
SEEN = _PREFIX + "seen"
DEADLINES = _PREFIX + "deadlines"
LOST = _PREFIX + "lost"
STOPS = _PREFIX + "stops"
FAILURES = _PREFIX + "failures"

AGENTS = _PREFIX + "agents"

SERVICE = _PREFIX + "service"
REAPER = _PREFIX + "reaper"
SETTLING = _PREFIX + "settling:"
CHANGED = _PREFIX + "changed"
