"""Every Redis key of the lease queue of one input list.

Q            list    raw payloads, as users push them
inbox:<node> list    what a blocked node was just handed (BLMOVE): raw payloads
lease:<node> hash    token -> entry
retry        zset    <token> SP entry -> ms at which it is due
dead         list    <JSON object> LF payload, the newest at the left
nodes        zset    node -> ms of its last renewal
producers    zset    producer -> ms at which it last said that it will push more
stats        hash    taken, committed, returned, aborted, fenced, dead, reaped, revived, discarded
                     -> count; commit:<node> -> the node's last commit and its verdicts;
             produced -> ms at which a producer last said so, also one that has left since

delivered    hash    of an output list on another Redis: node -> the name of its last delivery

An *entry* is `<attempts> <side> <since> LF <payload>`: how often a run of it has failed, from which
side of Q it was taken (L or R), when that was (ms), and the bytes that the user pushed. A token is
made by a node and never used again. All times are Redis' own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HASH_TAG = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True)
class QueueKeys:
    """The keys of the list `queue`, in its Cluster slot."""

    queue: str

    @property
    def retry(self) -> str:
        return self._key("retry")

    @property
    def dead(self) -> str:
        return self._key("dead")

    @property
    def nodes(self) -> str:
        return self._key("nodes")

    @property
    def producers(self) -> str:
        return self._key("producers")

    @property
    def stats(self) -> str:
        return self._key("stats")

    @property
    def delivered(self) -> str:
        return self._key("delivered")

    def inbox(self, node: str) -> str:
        return self._key(f"inbox:{node}")

    def lease(self, node: str) -> str:
        return self._key(f"lease:{node}")

    def _key(self, name: str) -> str:
        # A queue with a hash tag of its own lies in the slot of that tag alone.
        tagged = _HASH_TAG.search(self.queue)
        if tagged:
            return f"gc:{{{tagged[1]}}}{self.queue}:{name}"
        return f"gc:{{{self.queue}}}:{name}"
